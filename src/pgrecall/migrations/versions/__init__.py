"""The revisions, one file each; Alembic finds them here by itself."""
