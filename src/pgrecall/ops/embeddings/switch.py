"""Changing the model of a memory that is in use.

A second column of vectors grows beside the first, with an index of its own, while agents read
and write. Then the two change names in one short transaction: from then on the new vectors serve,
and the old ones stand beside them, kept up as far as their embedder is to be had, until they are
dropped or take their place back. Each step looks at what is there, so whatever was interrupted goes
on. The model that came last has the greater number; so it tells whether the change was made over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import errors as pg
from psycopg import sql

from pgrecall.config import Settings
from pgrecall.driver import Commands, connect_session, translate
from pgrecall.embedding.choice import Chosen
from pgrecall.errors import (
    ConfigurationError,
    DatabaseError,
    EmbedderUnavailable,
    OperationRefused,
    PgrecallError,
)
from pgrecall.ops.embeddings.comparing import Comparison, compare
from pgrecall.ops.embeddings.models import Model, Storage, maker, models
from pgrecall.ops.embeddings.wanted import Wanted, want
from pgrecall.ops.embeddings.worker import Backfill, backfill, embed_taken, store_taken
from pgrecall.ops.pace import Advance
from pgrecall.sql import load

LOCK_MS = 800
"""How long the change of names waits for its locks before it lets others pass, and tries again;
shorter than ``deadlock_timeout``, so that no other transaction is the victim of a deadlock."""
_FEW = 16
"""Texts that may always be embedded while writers are held up."""
_HELD_SECONDS = 1.0
"""For how long they may be held up, so that more texts may be left where embedding is fast."""
_TRIES = 200
_LINGERING = 10.0
_LEASE = 15.0
"""A change that was killed and goes on has to wait for the texts that it had taken."""
_PAUSE = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchReport:
    """What was done.

    Attributes:
        state: ``"ready"`` (prepared, not changed over), ``"switched"``, ``"back"`` (the old model
            serves again), ``"finished"`` or ``"aborted"``.
        serving: The model that serves now: its identity, with revision and storage where they
            say something.
        beside: The one beside it; None when there is none.
        refused: Texts that the new model refused, which only words find.
        comparison: What was measured before.
        held_ms: How long writers were held up by the change over.
    """

    state: str
    serving: str
    beside: str | None
    refused: int = 0
    comparison: Comparison | None = None
    held_ms: float | None = None


@dataclass(slots=True, kw_only=True)
class Switch:
    """A change of model, step by step; every method can be repeated.

    Attributes:
        dsn: Connection string of the owner, to the server itself.
        settings: Of the client.
        say: Told of each step.
        on_progress: Told of how far a long step is.
        stop: Ends a long step.
        batch: Texts embedded at a time.
    """

    dsn: str = field(repr=False)
    settings: Settings
    say: Say = lambda _: None
    on_progress: Advance | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    batch: int = 32
    _few: int = field(default=_FEW, init=False)

    def prepare(
        self,
        to: str | None = None,
        renderer: str | None = None,
        *,
        storage: Storage | None = None,
        queries: int = 30,
    ) -> SwitchReport:
        """Make the vectors and the index of another model, and compare the two.

        Args:
            to: The embedder, by its name; that of now unless given. Of the same model in another
                storage, vectors are copied.
            renderer: What is to make the texts; what does so now unless given.
            storage: How values are to be stored; as now unless given.
            queries: How many to compare by.

        Raises:
            OperationRefused: Another change is under way, or something depends on the column.
            ConfigurationError: The embedder cannot be had.
            EmbeddingError: It cannot embed.
        """
        with self._alone() as run:
            serving, beside = models(run)
            wanted = want(serving, to, renderer, storage, self.settings)
            if wanted.is_of(serving):
                return self._report(run, "switched" if beside else "ready")
            if beside is None:
                beside = self._begin(run, wanted)
            elif serving.number > beside.number:
                raise OperationRefused(
                    f"the change from {beside.title} to {serving.title} is not finished",
                    hint="end it first with `pgrecall embeddings switch --finish`, or undo it with "
                    "`--back`",
                )
            elif not wanted.is_of(beside):
                raise OperationRefused(
                    f"a change to {beside.title} is under way, not to {wanted.title}",
                    hint="give it up first with `pgrecall embeddings switch --abort`",
                )
            self._queue(run, beside)
            self._fill(beside)
            self._index(run, beside)
            self._fill(beside)
            run.connection.execute(run.texts["coded"], {"model": beside.number})
            self.say("comparing the two")
            old = None if beside.copied else _old(run, serving, self.settings)
            comparison = compare(run, old, wanted.maker_of(beside), queries)
            return replace(self._report(run, "ready"), comparison=comparison)

    def change_over(self) -> SwitchReport:
        """Let the prepared model serve.

        Raises:
            OperationRefused: None is prepared.
        """
        with self._alone() as run:
            serving, beside = models(run)
            if beside is None:
                raise OperationRefused(
                    "no other model is prepared",
                    hint="prepare one with `pgrecall embeddings switch --to EMBEDDER`",
                )
            if serving.number > beside.number:
                return self._report(run, "switched")
            if not (beside.queued and beside.coded):
                raise OperationRefused(
                    f"{beside.title} is not prepared to the end",
                    hint="run `pgrecall embeddings switch --to EMBEDDER` again; it goes on",
                )
            held = self._swap(run, beside, fully=True)
            return replace(self._report(run, "switched"), held_ms=held)

    def back(self) -> SwitchReport:
        """Let the model serve again that did before.

        Raises:
            OperationRefused: No change has been made over.
        """
        with self._alone() as run:
            serving, beside = models(run)
            if beside is None or serving.number < beside.number:
                raise OperationRefused(
                    "no change of model was made that could be undone",
                    hint="see `pgrecall embeddings status`",
                )
            held = self._swap(run, beside, fully=self._can_make(run, beside))
            return replace(self._report(run, "back"), held_ms=held)

    def finish(self) -> SwitchReport:
        """Drop the vectors of the model that served before.

        Raises:
            OperationRefused: No change has been made over.
        """
        with self._alone() as run:
            serving, beside = models(run)
            if beside is not None and serving.number < beside.number:
                raise OperationRefused(
                    f"{beside.title} does not serve yet, so {serving.title} cannot go",
                    hint="change over first with `pgrecall embeddings switch --to EMBEDDER`, or "
                    "give it up with --abort",
                )
            self._end(run, beside)
            return self._report(run, "finished")

    def abort(self) -> SwitchReport:
        """Give the change up: the old model serves, and nothing is left of the new one."""
        with self._alone() as run:
            serving, beside = models(run)
            if beside is not None and serving.number > beside.number:
                self._swap(run, beside, fully=self._can_make(run, beside))
                serving, beside = models(run)
            self._end(run, beside)
            return self._report(run, "aborted")

    @contextmanager
    def _alone(self) -> Iterator[Commands]:
        """Give a connection of the only change that is under way."""
        try:
            with connect_session(self.dsn, purpose="embeddings switch") as connection:
                run = Commands(connection, load("embeddings"))
                if not _claimed(run):
                    raise OperationRefused(
                        "another process is changing the model, or loading many rows",
                        hint="wait for it; see `pgrecall embeddings status`",
                    )
                if run.value("deferred"):
                    raise OperationRefused(
                        "an import was interrupted that has put the vector index off",
                        hint="run it again, or only build: pgrecall episodes import --finish",
                    )
                run.rows("be_patient")
                for left in run.rows("orphan_codes"):
                    self._forget_codes(run, left["model"])
                yield run
        except psycopg.Error as error:
            raise translate(error) from error

    def _begin(self, run: Commands, wanted: Wanted) -> Model:
        dependents = [f"{row['dependent']} ({row['relation']})" for row in run.rows("dependents")]
        if dependents:
            raise OperationRefused(
                f"something depends on the column embedding: {'; '.join(dependents)}",
                hint="it would stay with the old vectors; drop it, and make it anew afterwards",
            )
        self.say(f"beginning with {wanted.title}")
        for _ in self._tries():
            with self._briefly(run) as done:
                run.rows("begin", wanted.values())
            if done:
                break
        made = models(run)[1]
        if made is None:
            raise DatabaseError(f"the model {wanted.title} is not there any more")
        return made

    def _queue(self, run: Commands, beside: Model) -> None:
        if not beside.queued:
            queued = run.value("queue_all", {"model": beside.number})
            self.say(f"{queued:,} rows to {'copy' if beside.copied else 'embed'}")

    def _fill(self, beside: Model) -> None:
        report = backfill(
            self.dsn,
            Backfill(
                settings=self.settings,
                batch=self.batch,
                lease=_LEASE,
                stop=self.stop,
                only=beside.number,
                enough=self._few,
                on_progress=self.on_progress,
            ),
        )
        self._check_stopped()
        if report.stored > self.batch:
            self._few = max(_FEW, int(_HELD_SECONDS * report.stored / report.seconds))
        if report.stored:
            made = "copied" if beside.copied else "made"
            self.say(f"{report.stored:,} vectors {made}, {report.refused:,} texts refused")

    def _check_stopped(self) -> None:
        if self.stop.is_set():
            raise OperationRefused(
                "the change was interrupted", hint="run the same command again; it goes on"
            )

    def _index(self, run: Commands, beside: Model) -> None:
        for index in run.rows("beside_index"):
            if index["there"] and index["valid"]:
                continue
            name = sql.Identifier(f"{index['name']}_beside")
            if index["there"]:
                run.run("drop_index", index=name)
            given = dict(option.split("=", 1) for option in index["options"])
            given = {"m": "16", "ef_construction": "64"} | given
            self.say(f"building the index of {index['relation']}")
            run.run(
                "build_index",
                index=name,
                relation=sql.Identifier(index["relation"]),
                operators=sql.Identifier(f"{beside.storage}_cosine_ops"),
                options=sql.SQL(", ").join(
                    sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(int(value)))
                    for key, value in given.items()
                ),
            )
            self._check_stopped()

    def _swap(self, run: Commands, beside: Model, *, fully: bool) -> float:
        """Change the names. Returns how long writers were held up, in milliseconds.

        Writers wait while the last few texts are embedded, readers while names change. Who reads
        and then writes in one transaction could wait for us and we for him, so we give way and
        try again.
        """
        # Made before writers are held up, as a model may take long to load.
        chosen = maker(run, beside, self.settings) if fully and not beside.copied else None
        for _ in self._tries():
            if fully:
                self._fill(beside)
            begun = time.perf_counter()
            with self._briefly(run) as done:
                run.connection.execute(run.texts["hold_writers"])
                begun = time.perf_counter()
                if not fully or self._drain(run, beside, chosen):
                    run.rows("swap")
                else:
                    raise pg.LockNotAvailable("too many texts wait")
            if done:
                return (time.perf_counter() - begun) * 1000
        return 0.0

    def _drain(self, run: Commands, beside: Model, chosen: Chosen | None) -> bool:
        """Embed the last texts, in the transaction that holds writers up; says whether all are.

        Of vectors that are copied none is left, as each row has both.
        """
        left = {"model": beside.number}
        if chosen is None:
            return not run.value("left", left)
        if run.value("left", left) > 2 * self._few:
            return False
        while taken := run.rows("take", {**left, "count": _FEW, "lease": _LEASE}):
            store_taken(run, beside, taken, *embed_taken(chosen, taken))
        return not run.value("left", left)

    @contextmanager
    def _briefly(self, run: Commands) -> Iterator[list[bool]]:
        """Run a transaction that soon gives way; the list holds something if it is done."""
        done: list[bool] = []
        try:
            with run.connection.transaction():
                run.rows("be_brief", {"milliseconds": LOCK_MS})
                yield done
            done.append(True)
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            time.sleep(_PAUSE)

    def _tries(self) -> Iterator[int]:
        for number in range(_TRIES):
            self._check_stopped()
            yield number
        raise DatabaseError(
            f"the tables could not be locked for {LOCK_MS} ms in {_TRIES} attempts",
            hint="see in pg_stat_activity who keeps a transaction open, then run this again",
        )

    def _end(self, run: Commands, beside: Model | None) -> None:
        if beside is None:
            return
        for _ in self._tries():
            with self._briefly(run) as done:
                run.rows("end")
            if done:
                break
        self._forget_codes(run, beside.number)

    def _forget_codes(self, run: Commands, model: int) -> None:
        while run.value("forget_codes", {"model": model}):
            pass

    def _can_make(self, run: Commands, model: Model) -> bool:
        if model.copied:
            return True
        try:
            maker(run, model, self.settings).embed(["a first text"], "document")
        except PgrecallError as error:
            self.say(
                f"{model.title} cannot embed here ({error.message}); what was recorded since is "
                "found by its words alone"
            )
            return False
        return True

    def _report(self, run: Commands, state: str) -> SwitchReport:
        found = {row["number"]: row for row in run.rows("status")}
        serving, beside = models(run)
        return SwitchReport(
            state=state,
            serving=serving.title,
            beside=beside.title if beside else None,
            refused=sum(row["refused"] for row in found.values()),
        )


def _claimed(run: Commands) -> bool:
    """Become the only one who changes the model; a session that has just ended may linger."""
    deadline = time.monotonic() + _LINGERING
    while not run.value("claim_change"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _old(run: Commands, serving: Model, settings: Settings) -> Chosen | None:
    """Return what makes queries for the vectors that serve; None if it cannot be had here."""
    try:
        chosen = maker(run, serving, settings)
        chosen.embed(["a first text"], "query")
    except (ConfigurationError, EmbedderUnavailable):
        return None
    return chosen
