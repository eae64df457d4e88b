"""What monitoring reads and writes: narrow views, samples, probes of recall, runs of tasks."""

from __future__ import annotations

from pgrecall.migrations.steps import outside_transaction, run

revision = "1.2.0"
down_revision = "1.1.0"


def upgrade() -> None:
    """Build indexes while agents write, then make the rest in one transaction."""
    run("1.2.0", "drop_broken_indexes")
    with outside_transaction():
        # Each on its own: a concurrent build accepts no company.
        run("1.2.0", "be_patient", "no_embedding_index", "accuracy_index", "be_brief")
    run("1.2.0", "task_runs", "waiting", "views", "functions", "rights", "record")
