"""Import of episodes from JSON Lines: every good line once, every bad line kept with its reason."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pgrecall._sync.memory import ProjectMemory
from pgrecall.core.checks import check_choice, check_limit
from pgrecall.core.filters import scope_text
from pgrecall.errors import InvalidInput, PgrecallError, TransferError
from pgrecall.models import Embed
from pgrecall.ops.transfer.lines import Entry, Rules, parse
from pgrecall.ops.transfer.reading import MAX_LINE_BYTES, Line, LineReader, Source
from pgrecall.ops.transfer.rejects import RejectsFile, default_path
from pgrecall.ops.transfer.report import ImportReport, OnImportProgress, Progress
from pgrecall.ops.transfer.writing import BatchWriter, Written

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch of long lines ends here, so that memory stays bounded."""


def import_episodes(
    memory: ProjectMemory,
    source: Source,
    *,
    project_id: str | None = None,
    rejects: Path | None = None,
    batch_size: int = 256,
    embed: Embed = "now",
    on_progress: OnImportProgress | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> ImportReport:
    """Record the episodes of a JSON Lines source; it can be run again at any time.

    A line is known by its ``external_id`` in its project, or by its ``episode_id``; without
    both it gets an ``external_id`` made of its content (all but the vector), so that the same
    line is the same decision. A decision that stands already is left alone; an outcome or a
    quality that the line brings and the stored episode lacks is added. A bad line never
    touches the others.

    Args:
        memory: Where to; a memory bound to a project takes lines of that project only.
        source: A file, or a stream of bytes or text; packed with gzip or not.
        project_id: Project of lines that name none; lines of other projects are then bad.
        rejects: Where to keep the bad lines; ``<name>.rejects.jsonl`` beside the source unless
            given, for a stream ``import.rejects.jsonl`` in the working directory. Made with the
            first bad line; the file of a former run is removed at the start.
        batch_size: Lines written in one transaction, 1 to 10,000.
        embed: ``"later"`` stores lines that bring no vector without one.
        on_progress: Called at the start and after every batch.
        max_line_bytes: Longer lines are bad.

    Raises:
        InvalidInput: An argument cannot be meant; nothing was imported.
        OperationRefused: The rejects file exists and holds something else.
        TransferError: The source, the rejects file or the database failed, the database also
            when asked again for some seconds. The message tells how far the import came;
            running it again continues.
    """
    check_limit(batch_size, "batch_size")
    check_choice(embed, ("now", "later"), "embed")
    wanted = scope_text(project_id, "project_id")
    scope = memory._scope  # noqa: SLF001 - how large a document may be is known there alone
    rules = Rules(
        project_id=scope.project(wanted),
        dimensions=memory.dimensions,
        max_document_bytes=scope.database.settings.max_document_bytes,
    )
    with (
        LineReader(source, max_line_bytes) as reader,
        RejectsFile(rejects or default_path(source), source) as kept,
    ):
        run = _Import(BatchWriter(memory, embed), reader, kept, rules, on_progress)
        return run.all(batch_size, max_line_bytes)


class _Import:
    """One run: what it works with, and its counts."""

    def __init__(
        self,
        writer: BatchWriter,
        reader: LineReader,
        rejects: RejectsFile,
        rules: Rules,
        on_progress: OnImportProgress | None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._rejects = rejects
        self._rules = rules
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._sum = Written()
        self._last_line = 0

    def all(self, batch_size: int, max_line_bytes: int) -> ImportReport:
        self._tell()
        try:
            for batch in _batches(self._reader, batch_size):
                self._one(batch, max_line_bytes)
                self._tell()
        except PgrecallError as error:
            raise self._stopped(error) from error
        return ImportReport(
            **asdict(self._progress()),
            rejects=self._rejects.path,
            first_rejects=tuple(self._rejects.first),
        )

    def _one(self, batch: Sequence[Line], max_line_bytes: int) -> None:
        entries: list[Entry] = []
        bad: list[tuple[Line, PgrecallError]] = []
        for line in batch:
            try:
                entries.append(parse(line, self._rules, max_line_bytes))
            except InvalidInput as error:
                bad.append((line, error))
        written = self._writer.write(entries)
        bad += written.rejected
        self._rejects.add(sorted(bad, key=lambda item: item[0].number))
        self._sum.created += written.created
        self._sum.existing += written.existing
        self._sum.updated += written.updated
        self._last_line = batch[-1].number

    def _progress(self) -> Progress:
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
        )

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress())

    def _stopped(self, error: PgrecallError) -> TransferError:
        done = self._progress()
        hint = f"{error.hint}; " if error.hint else ""
        return TransferError(
            f"the import of {self._reader.name} stopped after line {self._last_line:,}"
            f" ({done.created:,} created, {done.existing + done.updated:,} known,"
            f" {done.rejected:,} bad): {error.message}",
            hint=f"{hint}run the same import again, it continues",
        )


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
