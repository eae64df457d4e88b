"""What a memory takes now, and how long this server takes to index some of its vectors."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgrecall.driver import Commands, connect, translate
from pgrecall.errors import OperationRefused
from pgrecall.ops.embeddings.models import MOST_DIMENSIONS, Storage
from pgrecall.ops.local import is_local, memory_of_this_machine
from pgrecall.sql import load

SAMPLE = 2000
"""Vectors that are indexed to see how long it takes."""
_QUERIES = 50
_COLUMNS: dict[Storage, str] = {"vector": "whole", "halfvec": "half"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """A memory as it is; sizes in bytes.

    Attributes:
        rows: Episodes.
        vectors: Episodes with a vector.
        storage: Type of the column.
        dimensions: Length of the vectors.
        table_bytes: Of episodes with what is stored out of line.
        plain_index_bytes: Of all indexes but that of vectors.
        vector_index_bytes: Of that; None where there is none.
        code_bytes: Of the codes of vectors.
        code_index_bytes: Of their index, which filtered recalls read.
        word_bytes: Of words.
        m: Links of an element of the index.
        ef_construction: Care with which it is built.
        shared_buffers: Cache of the server.
        maintenance_work_mem: What it builds an index in.
        workers: Processes that help with it, at most.
        recall: Share of the truth that recalls found, in the last seven days.
        machine_bytes: Memory of the machine; None where it cannot be seen.
        cores: Its processors; None where they cannot be seen.
    """

    rows: int
    vectors: int
    storage: Storage
    dimensions: int
    table_bytes: int
    plain_index_bytes: int
    vector_index_bytes: int | None
    code_bytes: int
    code_index_bytes: int
    word_bytes: int
    m: int
    ef_construction: int
    shared_buffers: int
    maintenance_work_mem: int
    workers: int
    recall: float | None
    machine_bytes: int | None
    cores: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some vectors that were indexed by one process.

    Attributes:
        rows: How many.
        real: Whether they are the memory's own; otherwise random ones, which take longest.
        seconds: How long it took, for each storage.
        kept: Of the ten nearest among them, the share that half precision leaves the same.
    """

    rows: int
    real: bool
    seconds: dict[Storage, float]
    kept: float


def measure(dsn: str) -> tuple[Now, Sample]:
    """Look at a memory, and index some of its vectors in a temporary table.

    Args:
        dsn: Connection string of the owner.

    Raises:
        OperationRefused: The server takes no temporary tables, as it is a standby.
        Unavailable: The server could not be reached.
    """
    try:
        with connect(dsn, purpose="sizing") as connection:
            run = Commands(connection, load("sizing"))
            now = _now(run)
            with connection.transaction(force_rollback=True):
                return now, _sample(run, now)
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise OperationRefused(
            "a standby cannot index a sample", hint="give the address of the primary server"
        ) from error
    except psycopg.Error as error:
        raise translate(error) from error


def _now(run: Commands) -> Now:
    found: dict[str, Any] = dict(run.one("memory"))
    here = is_local(run.connection.info.host, found.pop("backend_pid"))
    return Now(
        **found,
        machine_bytes=memory_of_this_machine() if here else None,
        cores=os.cpu_count() if here else None,
    )


def _sample(run: Commands, now: Now) -> Sample:
    dimensions = sql.Literal(now.dimensions)
    run.run("sample", count=sql.Literal(SAMPLE), dimensions=dimensions)
    run.rows("room")
    seconds: dict[Storage, float] = {}
    for storage, column in _COLUMNS.items():
        if now.dimensions > MOST_DIMENSIONS[storage]:
            continue
        begun = time.perf_counter()
        run.run(
            "build",
            index=sql.Identifier(f"pgrecall_sizing_{column}"),
            column=sql.Identifier(column),
            operators=sql.Identifier(f"{storage}_cosine_ops"),
            m=sql.Literal(now.m),
            ef_construction=sql.Literal(now.ef_construction),
        )
        seconds[storage] = time.perf_counter() - begun
    kept = run.value("rounding", {"queries": _QUERIES})
    return Sample(rows=SAMPLE, real=now.vectors >= SAMPLE, seconds=seconds, kept=kept)
