"""Statistics of comparisons: pure functions over arrays of per-example scores."""
