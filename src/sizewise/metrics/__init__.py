"""Per-example scores and their aggregates."""

# The classes that declare ``closed``, by their import paths: whoever plans a sweep asks,
# and would otherwise import torch for it. A test compares the two.
CLOSED_ANSWERS = frozenset({"sizewise.metrics.icd10.Icd10", "sizewise.metrics.label.Label"})
# Scores of how likely a model finds the reference: what training lowers, not what the task asks.
PERPLEXITY_PREFIX = "perplexity/"
