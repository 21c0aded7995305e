"""Scores per token: comparable only between models that cut the answers into the same tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from sizewise.evaluation.prediction import WEIGHTED_BY
from sizewise.report.candidates import Candidate, TestSet

COMPARABLE = "perplexity/bits_per_byte"
PER_TOKEN = ("perplexity/perplexity", "perplexity/nll_per_token")
COUNTED = next(name for name, by in WEIGHTED_BY.items() if by == "answer_tokens")
Counts = tuple[float, ...]


def by_tokenizer(test: TestSet) -> list[TestSet]:
    """Divide a test set whose primary score is per token by how the answers are cut into tokens.

    Returns:
        ``test`` itself where all count alike (or the score is none per token); else one test set
        for each way, with a fingerprint of its own. Candidates without readable answers stay with
        those of the same base.
    """
    if test.primary not in PER_TOKEN:
        return [test]
    groups = _groups(test.candidates)
    if len(groups) < 2:
        return [test]
    parts = []
    for number, (counts, candidates) in enumerate(groups.items()):
        text = f"{test.fingerprint}{counts}"
        parts.append(
            replace(
                test,
                fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
                candidates=candidates,
                problems=[] if number else test.problems,
                tokenizers=len(groups),
            )
        )
    return parts


def _groups(candidates: Sequence[Candidate]) -> dict[Counts, list[Candidate]]:
    readable = [c for c in candidates if c.first.answers is not None]
    common = sorted(set.intersection(*(set(_ids(c)) for c in readable))) if readable else []
    groups: dict[Counts, list[Candidate]] = {}
    of_base: dict[str, list[Candidate]] = {}
    for candidate in readable:
        group = groups.setdefault(_counts(candidate, common), [])
        group.append(candidate)
        of_base.setdefault(candidate.model.path, group)
    for candidate in candidates:
        if candidate.first.answers is None and groups:
            of_base.get(candidate.model.path, next(iter(groups.values()))).append(candidate)
    return groups


def _ids(candidate: Candidate) -> tuple[str, ...]:
    answers = candidate.first.answers
    return () if answers is None else answers.ids


def _counts(candidate: Candidate, ids: Sequence[str]) -> Counts:
    answers = candidate.first.answers
    if answers is None:
        return ()
    return tuple(answers.weights[COUNTED][answers.positions(ids)].tolist())
