"""Words: the words of every text and how often they occur; recall by words and vectors."""

from __future__ import annotations

from pgrecall.migrations.steps import outside_transaction, run

revision = "1.4.0"
down_revision = "1.3.0"


def upgrade() -> None:
    """Keep words from now on, read what is there while agents write, then make the rest."""
    run("1.4.0_words", "languages", "words", "texts", "counts", "folding", "upkeep", "triggers",
        "text_all")  # fmt: skip
    with outside_transaction():
        # Commits by itself, a batch at a time.
        run("1.4.0_words", "text_all_now", "analyze")
    run("1.4.0_search")
    run("1.4.0_fusion")
    run("1.4.0_recall")
