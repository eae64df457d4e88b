"""pgrecall: agent memory you can operate, on the PostgreSQL you already run."""
