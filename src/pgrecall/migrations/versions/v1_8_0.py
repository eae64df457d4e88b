"""Items: what frameworks keep in a store, by namespace and key."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.8.0"
down_revision = "1.7.0"


def upgrade() -> None:
    """Make room for items."""
    run("1.8.0_items")
