"""The worker: makes the vectors that are missing, in any number of processes at once.

It takes some texts for a while, embeds them while no transaction is open, and stores the vectors.
If it is killed in between, others take the same texts once that while is over.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg

from pgrecall.config import Settings
from pgrecall.core.text import render_knowledge
from pgrecall.core.vectors import to_vector
from pgrecall.driver import Row, Statements, connect, translate
from pgrecall.embedding.batches import embed_each
from pgrecall.embedding.choice import Chosen
from pgrecall.errors import (
    ConfigurationError,
    DatabaseError,
    EmbedderUnavailable,
    EmbeddingRefused,
    InvalidVector,
    Unavailable,
)
from pgrecall.ops.embeddings.models import Model, maker, models, tell_revision
from pgrecall.ops.pace import Advance
from pgrecall.sql import load

logger = logging.getLogger("pgrecall.embeddings")

BATCH = 32
COPIED = 500
"""Vectors copied at a time, from one storage to another."""
LEASE = 60.0
"""Seconds for which texts are taken; those of a worker that was killed wait as long. Who is slower
than that has them embedded twice, and stored once."""
POLL = 2.0
_COUNT_EVERY = 5.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


@dataclass(slots=True, kw_only=True)
class Report:
    """What a worker did.

    Attributes:
        stored: Vectors that were stored.
        refused: Texts that were refused, and wait for somebody to look after them.
        empty: Rows of which nothing can be said, which get no vector.
        seconds: How long it took.
        left: Texts that still wait.
    """

    stored: int = 0
    refused: int = 0
    empty: int = 0
    seconds: float = 0.0
    left: int = 0


@dataclass(slots=True, kw_only=True)
class Backfill:
    """How vectors are to be made.

    Attributes:
        settings: Of the client: which embedder where the database names none, time-outs.
        batch: Texts taken at a time.
        lease: Seconds for which they are taken.
        loop: Whether to go on when nothing is left.
        patience: Seconds without an embedder after which to give up; None never does.
        stop: Ends it after the batch that is under way.
        only: Number of the one model whose vectors are wanted.
        enough: How many texts may be left at the end: while others record, there are always some.
        on_progress: Called after every batch.
    """

    settings: Settings
    batch: int = BATCH
    lease: float = LEASE
    loop: bool = False
    patience: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    only: int | None = None
    enough: int = 0
    on_progress: Advance | None = None


def backfill(dsn: str, how: Backfill) -> Report:
    """Make the vectors that are missing; returns when none is left, or goes on until stopped.

    Args:
        dsn: Connection string of the application's role; a pooler is fine.
        how: How.

    Raises:
        ConfigurationError: There is no embedder that could make them.
        EmbedderUnavailable: It was down for longer than the patience lasts.
        Unavailable: The server could not be reached for as long.
    """
    return _Worker(dsn, how).run()


class _Worker:
    def __init__(self, dsn: str, how: Backfill) -> None:
        self._dsn = dsn
        self._how = how
        self._report = Report()
        self._begun = time.monotonic()
        self._makers: dict[int, Chosen] = {}
        self._without: set[int] = set()
        self._failing_since: float | None = None
        self._pause = _FIRST_PAUSE
        self._left = 0
        self._counted = -math.inf

    def run(self) -> Report:
        while not self._how.stop.is_set():
            try:
                with connect(self._dsn, purpose="embeddings") as connection:
                    done = self._work(Statements(connection, load("embeddings")))
            except (psycopg.Error, Unavailable) as error:
                ours = translate(error) if isinstance(error, psycopg.Error) else error
                if not isinstance(ours, DatabaseError):
                    raise ours from error
                self._back_off(ours)
                continue
            if done and not self._how.loop:
                break
        self._report.seconds = time.monotonic() - self._begun
        return self._report

    def _work(self, run: Statements) -> bool:
        """Work until nothing is left (True) or it is to stop."""
        while not self._how.stop.is_set():
            found = [model for model in models(run) if model is not None]
            wanted = [m for m in found if self._how.only in (None, m.number)]
            worked = [
                self._copies(run, model)
                if model.copied and not model.serving
                else self._batch(run, model)
                for model in wanted
            ]
            # What nobody here can make is not waited for.
            made = [model for model in wanted if model.number not in self._without]
            self._tell(run, made, anew=not any(worked))
            if not self._how.loop and self._left <= self._how.enough:
                return True
            if not any(worked):
                self._how.stop.wait(POLL if self._how.loop else 0.2)
        return False

    def _copies(self, run: Statements, model: Model) -> bool:
        """Copy a batch of the other model's vectors; says whether there was any."""
        taken = int(run.value("copy", {"model": model.number, "count": COPIED}))
        self._report.stored += taken
        self._left -= taken
        return taken > 0

    def _batch(self, run: Statements, model: Model) -> bool:
        """Embed one batch for a model; says whether there was any."""
        chosen = self._maker(run, model)
        if chosen is None:
            return False
        taken = run.rows(
            "take",
            {"model": model.number, "count": self._how.batch, "lease": self._how.lease},
        )
        if not taken:
            return False
        try:
            vectors, refused = embed_taken(chosen, taken)
        except EmbedderUnavailable as error:
            self._give_back(run, model, taken)
            self._back_off(error)
            return True
        except ConfigurationError as error:
            self._give_back(run, model, taken)
            self._do_without(model, error)
            return False
        except BaseException:
            self._give_back(run, model, taken)
            raise
        self._makers[model.number] = tell_revision(run, chosen)
        stored = store_taken(run, model, taken, vectors, refused)
        self._failing_since, self._pause = None, _FIRST_PAUSE
        self._report.stored += stored
        self._report.refused += sum(reason is not None for reason in refused)
        self._report.empty += sum(
            vector is None and reason is None
            for vector, reason in zip(vectors, refused, strict=True)
        )
        self._left -= len(taken)
        return True

    def _maker(self, run: Statements, model: Model) -> Chosen | None:
        if model.number not in self._makers and model.number not in self._without:
            try:
                self._makers[model.number] = maker(run, model, self._how.settings)
            except ConfigurationError as error:
                self._do_without(model, error)
        return self._makers.get(model.number)

    def _do_without(self, model: Model, error: ConfigurationError) -> None:
        """Let rows wait for the model that served before, in case it comes back."""
        if model.serving or self._how.only is not None:
            raise error
        logger.warning("no embedder for %s here, so its rows wait: %s", model.identity, error)
        self._makers.pop(model.number, None)
        self._without.add(model.number)

    def _give_back(self, run: Statements, model: Model, taken: Sequence[Row]) -> None:
        run.rows("give_back", {**_places(model, taken), "seconds": 0})

    def _back_off(self, error: EmbedderUnavailable | DatabaseError) -> None:
        """Wait, longer each time; gives up when the patience is at its end."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        patience = self._how.patience
        if patience is not None and now - self._failing_since > patience:
            raise error
        logger.warning("%s; trying again in %.1f s", error.message, self._pause)
        self._how.stop.wait(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _tell(self, run: Statements, wanted: Sequence[Model], *, anew: bool) -> None:
        """Tell how far it is; what is left is counted now and then, and before an end."""
        now = time.monotonic()
        if anew or self._left <= self._how.enough or now - self._counted > _COUNT_EVERY:
            self._left = sum(run.value("left", {"model": model.number}) for model in wanted)
            self._counted = now
        self._report.left = self._left
        if self._how.on_progress is not None:
            done = self._report.stored
            rate = done / max(now - self._begun, 1e-9)
            name = (wanted[0].identity or "") if wanted else ""
            self._how.on_progress(done, done + self._left, name, rate)


def embed_taken(chosen: Chosen, taken: Sequence[Row]) -> tuple[list[str | None], list[str | None]]:
    """Return of each text its vector, and why it has none; neither of rows that say nothing.

    Args:
        chosen: What makes the vectors.
        taken: Rows of the statement ``take``.

    Raises:
        EmbedderUnavailable: It cannot at the moment.
        EmbeddingError: It cannot.
        ConfigurationError: Its weights are not those that made the vectors.
    """
    texts = [_text(chosen, row) for row in taken]
    said = [place for place, text in enumerate(texts) if text.strip()]
    vectors: list[str | None] = [None] * len(taken)
    refused: list[str | None] = [None] * len(taken)
    made = embed_each(chosen.embedder, [texts[place] for place in said], "document")
    chosen.check_revision()
    for place, one in zip(said, made, strict=True):
        if isinstance(one, EmbeddingRefused):
            refused[place] = one.message
            continue
        try:
            vectors[place] = to_vector(one, chosen.served.dimensions).to_text()
        except InvalidVector as error:
            refused[place] = error.message
    return vectors, refused


def store_taken(
    run: Statements,
    model: Model,
    taken: Sequence[Row],
    vectors: Sequence[str | None],
    refused: Sequence[str | None],
) -> int:
    """Store what ``embed_taken`` gave; returns how many vectors that were."""
    made = {"vectors": [*vectors], "refused": [*refused]}
    return int(run.value("store", {**_places(model, taken), **made}))


def _places(model: Model, taken: Sequence[Row]) -> dict[str, object]:
    return {
        "model": model.number,
        "kinds": [row["kind"] for row in taken],
        "ids": [row["id"] for row in taken],
    }


def _text(chosen: Chosen, row: Row) -> str:
    most = chosen.embedder.max_tokens
    if row["kind"] == "knowledge":
        return render_knowledge(row["description"], row["first"], max_tokens=most)
    return chosen.renderer.render(row["first"], row["second"], row["third"], max_tokens=most)
