"""Alembic's entry: it runs this file for each command; the runner has prepared the connection."""

from __future__ import annotations

from alembic import context

from pgrecall.migrations import VERSION_SCHEMA

config = context.config
connection = config.attributes.get("connection")
context.configure(
    connection=connection,
    dialect_name="postgresql",
    version_table_schema=VERSION_SCHEMA,
    transaction_per_migration=True,
    on_version_apply=config.attributes.get("on_version_apply"),
)
with context.begin_transaction():
    context.run_migrations()
