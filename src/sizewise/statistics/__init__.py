"""Statistics of comparisons: pure functions over arrays of per-example scores.

Start at `comparison.compare_paired`; docs/statistics.md says what is computed and why.
"""
