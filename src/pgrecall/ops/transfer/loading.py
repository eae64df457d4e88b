"""How an import loads: over how many connections, and whether the vector index is kept up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self, get_args

from psycopg.rows import dict_row

from pgrecall._sync.memory import ProjectMemory
from pgrecall.core.checks import check_choice
from pgrecall.core.loading import (
    BUILDING,
    SAMPLED,
    Indexing,
    Load,
    deferring_ms,
    keeping_ms,
    row_ms,
    worth_measuring,
)
from pgrecall.errors import ConfigurationError, InvalidInput, OperationRefused, PgrecallError
from pgrecall.models import Embed
from pgrecall.ops.transfer.indexing import LINGERING, OnBuilding, Place, VectorIndexes
from pgrecall.ops.transfer.lines import Entry
from pgrecall.sql import statement

CONNECTIONS = 2
"""How many write at once unless told; more brought nothing on two processors."""

FEW = 1000
"""Rows below which a second connection is not worth its making."""

_NO_OWNER = "nobody said how to reach the database as its owner, whose the vector index is"
_OWNER_HINT = "give the connection string with --owner-dsn, or in PGRECALL_OWNER_DSN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an import loads, and why.

    Attributes:
        index: ``"keep"``: each row enters the vector index when it is written. ``"defer"``: the
            index is put off, and built at the end. ``"left"``: another import has put it off, and
            builds it.
        why: The reason, in words.
        connections: How many write at once.
        rows: About how many vectors are to come.
        present: About how many there are; None where that was not looked up.
        keep_seconds: What keeping the index is expected to take; None where not reckoned.
        defer_seconds: What building it at the end is.
        measured: Whether this server was measured for that.
    """

    index: Literal["keep", "defer", "left"]
    why: str
    connections: int
    rows: int
    present: int | None = None
    keep_seconds: float | None = None
    defer_seconds: float | None = None
    measured: bool = False


OnPlan = Callable[[Plan], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the caller of an import asks for.

    Attributes:
        index: Whether to put the vector index off; ``"auto"`` takes what is expected to be faster.
        connections: How many write at once; None leaves it to the import.
        owner_dsn: Connection string of the owner, to the server itself. Without one the index is
            kept.
    """

    index: Indexing = "auto"
    connections: int | None = None
    owner_dsn: str | None = None


class Loading:
    """Decides how an import loads, as it goes, and builds at the end what was put off.

    Args:
        memory: Where to.
        wanted: What the caller asks for.
        embed: When rows without a vector get theirs.
        on_plan: Told of the plan when it is made, and when it changes.

    Raises:
        InvalidInput: What is wanted cannot be meant.
        ConfigurationError: The index is to be put off and nobody says how to reach the database as
            its owner; or what is said leads elsewhere.
        OperationRefused: The index is to be put off and cannot be.
    """

    def __init__(
        self, memory: ProjectMemory, wanted: Wanted, embed: Embed, on_plan: OnPlan | None = None
    ) -> None:
        check_choice(wanted.index, get_args(Indexing), "index")
        scope = memory._scope  # noqa: SLF001 - it knows the pool and the embedder
        self._database = scope.database
        self._most = self._database.settings.pool_max_size
        given = wanted.connections
        if given is not None and not 1 <= given <= self._most:
            raise InvalidInput(
                f"connections is {given!r}",
                hint=f"give 1 to {self._most}; PGRECALL_POOL_MAX_SIZE allows more",
            )
        self._makes_vectors = embed == "now" and scope.embedder.available
        self._wanted = wanted
        self._on_plan = on_plan
        self._opened = ExitStack()
        self._indexes: VectorIndexes | None = None
        self._place: Place | None = None
        self._deferred = False
        self._why_not: str | None = None
        self._factors: tuple[float, float] | None = None
        self.plan: Plan | None = None
        self.connections = 1

    def __enter__(self) -> Self:
        if self._wanted.owner_dsn is None:
            self._refuse(ConfigurationError(_NO_OWNER, hint=_OWNER_HINT))
            return self
        try:
            with ExitStack() as opened:
                self._open(opened.enter_context(VectorIndexes(self._wanted.owner_dsn)))
                self._opened = opened.pop_all()
        except PgrecallError as error:
            self._refuse(error)
        return self

    def _open(self, indexes: VectorIndexes) -> None:
        place = indexes.place()
        self._check_same(place)
        if place.deferred:
            # An import before was killed, or one beside is at work.
            self._deferred = indexes.claim(patience=LINGERING)
        elif place.switching:
            raise _switching()
        self._indexes, self._place = indexes, place

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    def _check_same(self, place: Place) -> None:
        (row,) = self._database.fetch(statement("indexing", "same_place"), {}, dict_row)
        if place.identity != (row["database"], row["started"]):
            raise ConfigurationError(
                "the owner's connection string leads to another database than the memory's",
                hint="see PGRECALL_OWNER_DSN and PGRECALL_DIRECT_DSN, or give --owner-dsn",
            )

    def _refuse(self, error: PgrecallError) -> None:
        """Keep the index, for a reason; raise it where the index was to be put off by all means."""
        if self._wanted.index == "defer":
            raise error
        self._why_not = error.message

    @property
    def deferred(self) -> bool:
        """Whether the vector index is put off, and ours to build."""
        return self._deferred

    def consider(
        self, entries: Sequence[Entry], lines: int, *, new: float = 1.0, written: int = 0
    ) -> None:
        """Choose how to go on, before a batch is written.

        Args:
            entries: The batch.
            lines: About how many lines are to come, this batch included.
            new: Which part of the lines before was new.
            written: How many rows were written.
        """
        plan = self.preview(entries, lines, new=new, written=written)
        if plan.index == "defer" and not self._deferred:
            self._defer()
            if not self._deferred:
                plan = self._planned(plan.rows, written)
        if self.plan is None or (self.plan.index, self.plan.connections) != (
            plan.index,
            plan.connections,
        ):
            self.plan = plan
            if self._on_plan is not None:
                self._on_plan(plan)

    def preview(
        self, entries: Sequence[Entry], lines: int, *, new: float = 1.0, written: int = 0
    ) -> Plan:
        """Return what ``consider`` would choose; nothing is changed."""
        brought = sum(entry.new.embedding is not None for entry in entries) / max(len(entries), 1)
        embeds = self._makes_vectors and brought < 1
        if self._wanted.connections is not None:
            self.connections = self._wanted.connections
        elif lines > FEW and not embeds:
            # Where texts are embedded, it is that which takes the time.
            self.connections = min(CONNECTIONS, self._most)
        return self._planned(round(lines * new * (1.0 if embeds else brought)), written)

    def _planned(self, rows: int, written: int) -> Plan:
        plan = Plan(index="keep", why="as was asked", connections=self.connections, rows=rows)
        if self._place is None or self._indexes is None:
            why = plan.why if self._wanted.index == "keep" else self._why_not or _NO_OWNER
            return replace(plan, why=why)
        load = Load(
            rows=rows,
            present=self._place.present + written,
            dimensions=self._place.dimensions,
            connections=self.connections,
            processes=self._place.processes,
        )
        if not self._deferred and self._wanted.index == "auto" and worth_measuring(load):
            self._factors = self._factors or _measure(self._indexes, load.dimensions)
        if self._factors is not None:
            load = replace(load, building=self._factors[0], upkeep=self._factors[1])
        keep, defer = keeping_ms(load) / 1000, deferring_ms(load) / 1000
        index, why = self._judged(keep, defer)
        return replace(
            plan,
            index=index,
            why=why,
            present=load.present,
            keep_seconds=round(keep, 1),
            defer_seconds=round(defer, 1),
            measured=self._factors is not None,
        )

    def _judged(self, keep: float, defer: float) -> tuple[Literal["keep", "defer", "left"], str]:
        if self._deferred:
            return "defer", "it is put off, and built at the end"
        if self._place is not None and self._place.deferred:
            return "left", "another import has put it off, and builds it"
        if self._why_not is not None:
            return "keep", self._why_not
        if self._wanted.index != "auto":
            return self._wanted.index, "as was asked"
        if defer < keep:
            return "defer", f"building takes about {defer:,.0f} s, keeping it up {keep:,.0f} s"
        return "keep", f"keeping it up takes about {keep:,.0f} s, building {defer:,.0f} s"

    def _defer(self) -> None:
        if self._indexes is None:
            raise RuntimeError("nothing can be put off without the owner's connection")
        if not self._indexes.claim(patience=LINGERING if self._wanted.index == "defer" else 0):
            self._refuse(
                OperationRefused(
                    "another import, or a change of the embedding model, is at work",
                    hint="wait for it, or import with --index keep",
                )
            )
        elif self._indexes.place().switching:
            self._refuse(_switching())
        elif not self._indexes.defer():
            self._refuse(
                OperationRefused(
                    "others kept the table locked, so its vector index could not be put off",
                    hint="see in pg_stat_activity who keeps a transaction open",
                )
            )
        else:
            self._deferred = True

    def finish(self, on_building: OnBuilding | None = None) -> list[str]:
        """Build what was put off; returns the indexes that are there again.

        Raises:
            DatabaseError: It failed, also when tried again for some seconds.
        """
        if self._indexes is None or self._place is None:
            return []
        # Whoever put it off before may have died since.
        mine = self._deferred or (self._place.deferred and self._indexes.claim())
        return self._indexes.build(on_building) if mine else []


def _switching() -> OperationRefused:
    return OperationRefused(
        "a change of the embedding model is under way",
        hint="end it first, or import with --index keep",
    )


def _measure(indexes: VectorIndexes, dimensions: int) -> tuple[float, float]:
    """Return how much slower than expected this server builds and keeps an index."""
    building, keeping = indexes.measure()
    expected = row_ms(SAMPLED, dimensions)
    return building / (BUILDING * expected), keeping / expected
