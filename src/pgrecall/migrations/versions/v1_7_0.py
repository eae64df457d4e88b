"""Interfaces: keys of those who reach the memory over HTTP."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.7.0"
down_revision = "1.6.0"


def upgrade() -> None:
    """Make room for keys, and for answers to requests that may be sent again."""
    run("1.7.0_keys")
