"""Items, which frameworks keep by key; misspelt words among very many; long sessions."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.8.0"
down_revision = "1.7.0"


def upgrade() -> None:
    """Look up what misspelt words are meant to be; make room for items."""
    run("1.8.0_words")
    run("1.8.0_thoughts")
    run("1.8.0_items")
