"""The commands behind ``sizewise …``; each imports what it needs when it is called."""
