"""Check of the words that recalls search: whether they follow their rows and are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from pgrecall.driver import Row, Statements
from pgrecall.ops.checks import Seen
from pgrecall.ops.doctor.recall import Trigger, trigger_faults
from pgrecall.sql import load

if TYPE_CHECKING:
    from pgrecall.ops.doctor.facts import Facts

COUNT_SECONDS = 10.0
"""How long words may be compared with rows."""
WAITING = 10_000
"""Changes that wait to be counted in, from which on searches are slow."""
_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What keeps the words, and what is amiss with them.

    Attributes:
        triggers: Triggers that keep words, whether they are there or not.
        missing: Rows whose words are not kept, up to some thousands.
        orphaned: Words of rows that are gone, up to some thousands.
        waiting: Changes that are not counted in.
    """

    triggers: tuple[Trigger, ...]
    missing: int
    orphaned: int
    waiting: int


def examine_words(connection: psycopg.Connection[Row]) -> Words | None:
    """Return whether words follow their rows; None where it took too long to compare."""
    statements = Statements(connection, load("doctor"))
    try:
        with connection.transaction(force_rollback=True):
            statements.one("patience", {"milliseconds": round(COUNT_SECONDS * 1000)})
            found = statements.one("words", {"most": _MOST})
    except psycopg.errors.QueryCanceled:
        return None
    triggers = tuple(Trigger(**row) for row in statements.rows("word_triggers"))
    return Words(triggers=triggers, **found)


def words(facts: Facts) -> Seen:
    """Every text has its words, and the triggers that keep them are at work."""
    if not facts.server.has_words:
        return Seen(
            "not configured", "this revision of the schema keeps no words", "run `pgrecall migrate`"
        )
    found = facts.words
    if found is None:
        return Seen(
            "not configured", f"words could not be compared with rows within {COUNT_SECONDS:g} s"
        )
    remedies = load("remedies")
    faults, mended = trigger_faults(found.triggers)
    if faults:
        # What was written meanwhile may have other words than those that are kept.
        told = "; ".join([*mended, *remedies["text_anew"].split(";\n")])
        return Seen("failed", "; ".join(faults), f"as the owner: {told}")
    if found.missing or found.orphaned:
        many = "or more " if max(found.missing, found.orphaned) >= _MOST else ""
        return Seen(
            "warning",
            f"{found.missing:,} {many}rows without their words, {found.orphaned:,} {many}words "
            "without their row",
            "as the owner: "
            + "; ".join(remedies["text_anew" if found.orphaned else "text_all"].split(";\n")),
        )
    if found.waiting > WAITING:
        return Seen(
            "warning",
            f"{found.waiting:,} changes are not counted in, which every search by words reads",
            f"as the owner: {remedies['fold_words']}",
        )
    return Seen("passed", f"every text has its words; {found.waiting:,} changes to be counted in")
