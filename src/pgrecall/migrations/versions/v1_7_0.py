"""The memory for those who speak SQL alone."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.7.0"
down_revision = "1.6.0"


def upgrade() -> None:
    """Add the client's operations as functions of the database."""
    run("1.7.0_interface")
    run("1.7.0_interface_more")
    run("1.7.0_record")
