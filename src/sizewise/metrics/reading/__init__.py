"""How an answer is read: as a label or code, with its form forgiven, or by what judges said."""
