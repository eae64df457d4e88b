"""Bulk import: vector indexes that are put off while rows are loaded."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.6.0"
down_revision = "1.5.0"


def upgrade() -> None:
    """Make the table of what an import is to build again, and measure how fast a server indexes."""
    run("1.6.0_bulk", "deferred", "timing", "deferred_rights", "record")
