"""The specification's schema with its corrections."""

from __future__ import annotations

from pgrecall.migrations.steps import run

revision = "1.0.0"
down_revision = None


def upgrade() -> None:
    """Create everything, then correct it as an adopted schema is corrected."""
    run("1.0.0_schema")
    run("1.0.0_corrections")
