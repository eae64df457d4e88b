"""Recall: codes of vectors, routes of a search and the choice between them, samples of queries."""

from __future__ import annotations

from pgrecall.migrations.steps import outside_transaction, run

revision = "1.3.0"
down_revision = "1.2.0"


def upgrade() -> None:
    """Keep codes from now on, code what is there while agents write, then make the rest."""
    run("1.3.0_codes", "coding", "models", "codes", "upkeep", "triggers", "code_all")
    with outside_transaction():
        # Commits by itself, a batch at a time.
        run("1.3.0_codes", "code_all_now", "analyze")
    run("1.3.0_routes")
    run("1.3.0_recall")
