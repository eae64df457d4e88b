"""External ids of episodes, knowledge of one project, exact durations, a view for monitoring."""

from __future__ import annotations

from pgrecall.migrations.steps import outside_transaction, run

revision = "1.1.0"
down_revision = "1.0.0"


def upgrade() -> None:
    """Add columns and their index; every step may find its work done by an earlier attempt."""
    run("1.1.0", "columns", "drop_broken_index")
    with outside_transaction():
        # Each on its own: a concurrent build accepts no company.
        run("1.1.0", "be_patient", "external_id_index", "be_brief")
    run("1.1.0", "monitoring", "record")
