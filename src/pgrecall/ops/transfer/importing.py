"""Import of episodes from JSON Lines: every good line once, every bad line kept with its reason."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

from pgrecall._sync.memory import ProjectMemory
from pgrecall.core.checks import check_choice, check_limit
from pgrecall.core.filters import scope_text
from pgrecall.core.loading import Indexing
from pgrecall.errors import InvalidInput, PgrecallError, TransferError
from pgrecall.models import Embed
from pgrecall.ops.transfer.indexing import Building, OnBuilding, VectorIndexes
from pgrecall.ops.transfer.lines import Entry, Rules, parse
from pgrecall.ops.transfer.loading import Loading, OnPlan, Plan, Wanted
from pgrecall.ops.transfer.reading import MAX_LINE_BYTES, Line, LineReader, Source
from pgrecall.ops.transfer.rejects import RejectsFile, default_path
from pgrecall.ops.transfer.report import ImportReport, OnImportProgress, Progress
from pgrecall.ops.transfer.writing import BatchWriter, Written

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch of long lines ends here, so that memory stays bounded."""

_PREVIEWED = 256


def import_episodes(
    memory: ProjectMemory,
    source: Source,
    *,
    project_id: str | None = None,
    rejects: Path | None = None,
    batch_size: int = 256,
    embed: Embed = "now",
    index: Indexing = "auto",
    connections: int | None = None,
    owner_dsn: str | None = None,
    on_progress: OnImportProgress | None = None,
    on_plan: OnPlan | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> ImportReport:
    """Record the episodes of a JSON Lines source; it can be run again at any time.

    A line is known by its ``external_id`` in its project, or by its ``episode_id``; without
    both it gets an ``external_id`` made of its content (all but the vector), so that the same
    line is the same decision. A decision that stands already is left alone; an outcome or a
    quality that the line brings and the stored episode lacks is added. A bad line never
    touches the others.

    Where many vectors come, the vector index is put off and built at the end, which takes the
    owner's rights. Recalls read codes meanwhile, and find the same.

    Args:
        memory: Where to; a memory bound to a project takes lines of that project only.
        source: A file, or a stream of bytes or text; packed with gzip or not.
        project_id: Project of lines that name none; lines of other projects are then bad.
        rejects: Where to keep the bad lines; ``<name>.rejects.jsonl`` beside the source unless
            given, for a stream ``import.rejects.jsonl`` in the working directory. Made with the
            first bad line; the file of a former run is removed at the start.
        batch_size: Lines written in one transaction, 1 to 10,000.
        embed: ``"later"`` stores lines that bring no vector without one.
        index: ``"keep"`` lets each row enter the vector index when it is written, ``"defer"`` puts
            the index off; ``"auto"`` takes what is expected to be faster.
        connections: How many write at once, up to the size of the client's pool; chosen unless
            given.
        owner_dsn: Connection string of the owner, to the server itself. Without one the index is
            kept.
        on_progress: Called at the start, after every batch, and while an index is built.
        on_plan: Called when it is chosen how to load, and when that changes.
        max_line_bytes: Longer lines are bad.

    Raises:
        InvalidInput: An argument cannot be meant; nothing was imported.
        ConfigurationError: The owner's connection string is missing or leads elsewhere.
        OperationRefused: The rejects file exists and holds something else; or the index is to be
            put off and cannot be.
        TransferError: The source, the rejects file or the database failed, the database also
            when asked again for some seconds. The message tells how far the import came;
            running it again continues.
    """
    check_limit(batch_size, "batch_size")
    check_choice(embed, ("now", "later"), "embed")
    rules = _rules(memory, project_id)
    wanted = Wanted(index=index, connections=connections, owner_dsn=owner_dsn)
    loading = Loading(memory, wanted, embed, on_plan)
    with (
        LineReader(source, max_line_bytes) as reader,
        RejectsFile(rejects or default_path(source), source) as kept,
        loading,
    ):
        writer = BatchWriter(memory, embed)
        run = _Import(writer, reader, kept, rules, loading, max_line_bytes, on_progress)
        return run.all(batch_size)


def plan_import(
    memory: ProjectMemory,
    source: Path,
    *,
    project_id: str | None = None,
    embed: Embed = "now",
    index: Indexing = "auto",
    connections: int | None = None,
    owner_dsn: str | None = None,
) -> Plan:
    """Say how an import would load, by the first lines of its source; nothing is written.

    Args:
        memory: As for :func:`import_episodes`, and so are the others.
        source: A file.
        project_id: Project of lines that name none.
        embed: Whether texts are embedded.
        index: What is wanted.
        connections: What is wanted.
        owner_dsn: Connection string of the owner.

    Raises:
        PgrecallError: What :func:`import_episodes` raises before it writes.
    """
    rules = _rules(memory, project_id)
    wanted = Wanted(index=index, connections=connections, owner_dsn=owner_dsn)
    with LineReader(source) as reader, Loading(memory, wanted, embed) as loading:
        batch = next(_batches(reader, _PREVIEWED), [])
        entries, _ = _parsed(batch, rules, MAX_LINE_BYTES)
        return loading.preview(entries, _lines_left(reader, batch, len(batch)))


def finish_import(owner_dsn: str, *, on_building: OnBuilding | None = None) -> list[str]:
    """Build what an import has put off that was interrupted and is not to be run again.

    Args:
        owner_dsn: Connection string of the owner, to the server itself.
        on_building: Told of how far it is.

    Returns:
        The indexes that are there again; none if none was put off.

    Raises:
        OperationRefused: Another process is at work.
        DatabaseError: It failed.
    """
    with VectorIndexes(owner_dsn) as indexes:
        return indexes.build(on_building) if indexes.place().deferred else []


def _rules(memory: ProjectMemory, project_id: str | None) -> Rules:
    scope = memory._scope  # noqa: SLF001 - how large a document may be is known there alone
    return Rules(
        project_id=scope.project(scope_text(project_id, "project_id")),
        dimensions=memory.dimensions,
        max_document_bytes=scope.database.settings.max_document_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A batch that is read, and may be being written."""

    last_line: int
    entries: Sequence[Entry]
    bad: list[tuple[Line, PgrecallError]]
    names: AbstractSet[object]
    """What its lines are known by."""

    @classmethod
    def of(cls, batch: Sequence[Line], rules: Rules, max_line_bytes: int) -> _Part:
        entries, bad = _parsed(batch, rules, max_line_bytes)
        rows = [entry.row for entry in entries]
        names = {(row.project_id, row.external_id) for row in rows if row.external_id is not None}
        return cls(batch[-1].number, entries, bad, names | {row.episode_id for row in rows})


class _Import:
    """One run: what it works with, and its counts."""

    def __init__(
        self,
        writer: BatchWriter,
        reader: LineReader,
        rejects: RejectsFile,
        rules: Rules,
        loading: Loading,
        max_line_bytes: int,
        on_progress: OnImportProgress | None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._rejects = rejects
        self._rules = rules
        self._loading = loading
        self._max_line_bytes = max_line_bytes
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._sum = Written()
        self._last_line = 0
        self._new = 1.0
        self._under_way: deque[tuple[_Part, Future[Written]]] = deque()

    def all(self, batch_size: int) -> ImportReport:
        self._tell()
        try:
            with ThreadPoolExecutor(thread_name_prefix="pgrecall-import") as pool:
                self._load(pool, batch_size)
            loaded = time.monotonic()
            built = self._loading.finish(self._tell)
        except PgrecallError as error:
            raise self._stopped(error) from error
        progress = self._progress()
        return ImportReport(
            **{field.name: getattr(progress, field.name) for field in fields(progress)},
            rejects=self._rejects.path,
            first_rejects=tuple(self._rejects.first),
            plan=self._loading.plan,
            built=tuple(built),
            build_seconds=time.monotonic() - loaded if built else 0.0,
        )

    def _load(self, pool: ThreadPoolExecutor, batch_size: int) -> None:
        """Read, and write over several connections; what is done is counted in the order read."""
        try:
            for batch in _batches(self._reader, batch_size):
                part = _Part.of(batch, self._rules, self._max_line_bytes)
                self._loading.consider(
                    part.entries,
                    _lines_left(self._reader, batch, batch[-1].number),
                    new=self._new,
                    written=self._sum.created,
                )
                while self._under_way and (
                    len(self._under_way) >= self._loading.connections
                    or any(not part.names.isdisjoint(other.names) for other, _ in self._under_way)
                ):
                    self._settle()
                self._under_way.append((part, pool.submit(self._writer.write, part.entries)))
        finally:
            # Also where the source broke: what was read before is good.
            while self._under_way:
                self._settle()

    def _settle(self) -> None:
        """Wait for the batch that was read first, and count it."""
        part, writing = self._under_way.popleft()
        try:
            written = writing.result()
        except BaseException:
            for _, other in self._under_way:
                other.cancel()
            self._under_way.clear()
            raise
        bad = sorted(part.bad + written.rejected, key=lambda item: item[0].number)
        self._rejects.add(bad)
        self._sum.created += written.created
        self._sum.existing += written.existing
        self._sum.updated += written.updated
        self._last_line = part.last_line
        self._new = written.created / max(len(part.entries), 1)
        self._tell()

    def _progress(self, building: Building | None = None) -> Progress:
        done = self._sum
        return Progress(
            read=done.created + done.existing + done.updated + self._rejects.count,
            created=done.created,
            existing=done.existing,
            updated=done.updated,
            rejected=self._rejects.count,
            bytes_read=self._reader.bytes_read,
            total_bytes=self._reader.total_bytes,
            seconds=time.monotonic() - self._started,
            building=building,
        )

    def _tell(self, building: Building | None = None) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress(building))

    def _stopped(self, error: PgrecallError) -> TransferError:
        done = self._progress()
        hint = f"{error.hint}; " if error.hint else ""
        also = " and builds the vector index that is put off" if self._loading.deferred else ""
        return TransferError(
            f"the import of {self._reader.name} stopped after line {self._last_line:,}"
            f" ({done.created:,} created, {done.existing + done.updated:,} known,"
            f" {done.rejected:,} bad): {error.message}",
            hint=f"{hint}run the same import again, it continues{also}",
        )


def _parsed(
    batch: Sequence[Line], rules: Rules, max_line_bytes: int
) -> tuple[list[Entry], list[tuple[Line, PgrecallError]]]:
    entries: list[Entry] = []
    bad: list[tuple[Line, PgrecallError]] = []
    for line in batch:
        try:
            entries.append(parse(line, rules, max_line_bytes))
        except InvalidInput as error:
            bad.append((line, error))
    return entries, bad


def _lines_left(reader: LineReader, batch: Sequence[Line], read: int) -> int:
    """Return about how many lines are to come, the batch included.

    Of a stream nobody knows: as many again as came so far, which at worst takes twice as long as
    the better choice would have.
    """
    if reader.total_bytes is None or not reader.bytes_read:
        return read + len(batch)
    rest = max(reader.total_bytes - reader.bytes_read, 0)
    return len(batch) + round(rest * read / reader.bytes_read)


def _batches(lines: LineReader, size: int) -> Iterator[list[Line]]:
    batch: list[Line] = []
    weight = 0
    try:
        for line in lines:
            batch.append(line)
            weight += len(line.raw)
            if len(batch) == size or weight >= MAX_BATCH_BYTES:
                yield batch
                batch, weight = [], 0
    except TransferError:
        # What was read before the source broke is good.
        if batch:
            yield batch
        raise
    if batch:
        yield batch
