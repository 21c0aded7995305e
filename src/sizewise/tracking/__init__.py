"""Experiment trackers: W&B and the others."""
