"""Models that a job asks beside its own: judges of its answers, and a teacher of its training."""
