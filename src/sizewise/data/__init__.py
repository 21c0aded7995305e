"""Rows to messages, leak-safe splits, encoding with an answer-only mask, batches."""
