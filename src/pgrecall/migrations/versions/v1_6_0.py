"""Many rows at once: imports that put the vector index off, and bursts that stand beside it."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.6.0"
down_revision = "1.5.0"


def upgrade() -> None:
    """Note what imports put off; make a part of the episodes without an index on vectors."""
    run("1.6.0_bulk")
    run("1.6.0_recent")
    run("1.6.0_recall")
