"""Run identity, planning, launching, resuming and the state of a sweep."""
