"""Per-example scores and their aggregates."""
