"""Recognises what a database holds, and takes over a schema that was made by hand.

Taking over changes who owns the objects and nothing else: rows stay, every grant stays, and the
previous owner keeps by name what owning implied.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from pgrecall.driver import Row
from pgrecall.migrations import history
from pgrecall.migrations.steps import execute, statements
from pgrecall.ops.checks import build_vector_index
from pgrecall.ops.provision.report import Journal
from pgrecall.ops.provision.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFacts:
    """What a database holds of the schema.

    Attributes:
        revision: The recorded revision, or None.
        missing: What the specification's SQL makes and isn't there.
        in_the_way: Relations of another kind under names of the schema.
        unlike: Columns that are missing or of another type.
        dimensions: Dimensions of the embeddings by table; -1 where the column names none.
        extensions: Installed extensions by name.
        empty: Whether no relation of anyone lies in the database.
        not_takeable: Objects whose owner the administrator may not act as.
        has_any: Whether a table of the schema exists.
    """

    revision: str | None
    missing: tuple[str, ...]
    in_the_way: tuple[str, ...]
    unlike: tuple[str, ...]
    dimensions: dict[str, int]
    extensions: dict[str, Row]
    empty: bool
    not_takeable: tuple[str, ...]
    has_any: bool

    @property
    def made_by_hand(self) -> bool:
        """Whether the specification's own SQL made it."""
        return self.revision is None and self.has_any

    @property
    def partial(self) -> bool:
        """Whether it was made by hand and never completed."""
        return self.made_by_hand and bool(self.missing)


def inspect(session: Session, owner: str) -> SchemaFacts:
    """Look at the database of ``session``, changing nothing."""
    missing = session.rows("objects_missing")
    relations = {"table", "view", "function"}
    expected = 5 + 3 + 3
    return SchemaFacts(
        revision=history.current(session.connection),
        missing=tuple(f"{row['kind']} {row['name']}" for row in missing),
        in_the_way=tuple(row["what"] for row in session.rows("objects_in_the_way")),
        unlike=tuple(row["what"] for row in session.rows("columns_unlike")),
        dimensions={row["relation"]: row["dimensions"] for row in session.rows("dimensions")},
        extensions={row["name"]: row for row in session.rows("installed_extensions")},
        empty=not session.value("other_relations"),
        not_takeable=tuple(
            f"{row['kind'].lower()} {row['name']} of {row['previous']!r}"
            for row in session.rows("ownership", {"owner": owner})
            if not row["may_take"] and row["kind"] != "DATABASE"
        ),
        has_any=sum(row["kind"] in relations for row in missing) < expected,
    )


def take_ownership(session: Session, owner: str, journal: Journal) -> None:
    """Make ``owner`` own the database and everything of ours in it, in one transaction."""
    found = session.rows("ownership", {"owner": owner})
    if not found:
        journal.unchanged("ownership", owner)
        return
    previous = sorted({row["previous"] for row in found if not row["previous_is_superuser"]})
    defaults = session.rows(
        "inherited_defaults", {"owner": owner, "previous": [row["previous"] for row in found]}
    )

    def act() -> None:
        with session.connection.transaction():
            # First, so that a previous owner never stands without rights.
            for name in previous:
                session.run(
                    "grant_membership", role=sql.Identifier(owner), member=sql.Identifier(name)
                )
            for row in found:
                session.run_text(row["take"])
            # A member of the owner grants in its name, and so does a superuser.
            for row in found:
                if not row["previous_is_superuser"]:
                    session.run_text(row["keep"])
            for row in defaults:
                session.run_text(row["statement"])

    kept = f"; {', '.join(previous)} keep their rights as members" if previous else ""
    names = ", ".join(f"{row['kind'].lower()} {row['name']}" for row in found)
    journal.change("ownership", owner, act, f"of {names}{kept}")


def correct_evidence(session: Session, owner: str, dimensions: int, journal: Journal) -> None:
    """Put the evidence constraint right where the rows allow it, otherwise say why not."""
    row = session.one("evidence")
    if "cardinality(supporting_episodes) >= 3" in (row["definition"] or ""):
        return
    name = "chk_min_supporting_episodes"
    if row["violations"]:
        journal.notes.append(
            f"constraint {name} stays as it was: {row['violations']} active rows of "
            "agent_knowledge have fewer than three supporting episodes; add evidence or set "
            "is_active = false, then run init again"
        )
        return

    def act() -> None:
        texts = statements("1.0.0_corrections", "evidence", dimensions=dimensions)
        with session.connection.transaction(), session.acting_as(owner):
            execute(session.connection, texts)

    journal.change("constraint", name, act, "an empty list of evidence no longer passes")


def note_vector_indexes(session: Session, journal: Journal) -> None:
    """Name vector indexes that are missing or were never finished; building one may take long."""
    for row in session.rows("vector_indexes"):
        if row["valid"]:
            continue
        name = row["name"]
        state = "is missing" if row["valid"] is None else "is invalid (a build was cut short)"
        drop = "" if row["valid"] is None else f"DROP INDEX {name}; "
        journal.notes.append(
            f"index {name} {state}, so recalls scan the whole table; run as the owner: {drop}"
            + build_vector_index(name)
        )
