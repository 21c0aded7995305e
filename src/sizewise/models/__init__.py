"""Bases, quantisation, adapters, answer-only heads and their sizes."""
