"""Interfaces: keys of those who ask over HTTP, and functions for those who speak SQL alone."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.7.0"
down_revision = "1.6.0"


def upgrade() -> None:
    """Make room for keys and for answers; add the client's operations as functions."""
    run("1.7.0_keys")
    run("1.7.0_interface")
    run("1.7.0_interface_more")
    run("1.7.0_record")
