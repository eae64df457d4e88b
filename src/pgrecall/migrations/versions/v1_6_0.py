"""Recent episodes: rows of bursts beside the vector index, merged into it in the background."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.6.0"
down_revision = "1.5.0"


def upgrade() -> None:
    """Make a part of the episodes without an index on vectors, and let recalls look at it."""
    run("1.6.0_recent")
    run("1.6.0_recall")
