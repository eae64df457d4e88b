"""Pure functions: no SQL, no waiting, nothing of ours but models and errors."""
