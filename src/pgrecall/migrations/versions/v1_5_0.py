"""Embeddings: models by name, the queue of vectors to be made, a second column beside."""

from __future__ import annotations

from pgrecall.migrations.steps import outside_transaction, run

revision = "1.5.0"
down_revision = "1.4.0"


def upgrade() -> None:
    """Queue what has no vector from now on, then what has none so far."""
    run("1.5.0_embeddings", "models", "queue", "upkeep", "waiting", "beside", "changing", "fill",
        "rights")  # fmt: skip
    with outside_transaction():
        run("1.5.0_embeddings", "drop_no_embedding_index")
    run("1.5.0_embeddings", "record")
