"""How far long work is, in words."""

from __future__ import annotations

import pytest

from pgrecall.ops import pace
from pgrecall.ops.backup.manifest import Database
from pgrecall.ops.backup.rebuild import _Teller


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("after", "done", "said"),
    [
        (1, 0, "0.0 of about 200.0 MB"),
        (10, 20_000_000, "20.0 of about 200.0 MB, 2.0 MB/s, about 1 min 30 s left"),
        (10, 150_000_000, "150.0 of about 200.0 MB, 15.0 MB/s, about 3 s left"),
        (8_000, 100_000_000, "100.0 of about 200.0 MB, 0.0 MB/s, about 2 h 13 min left"),
        (10, 210_000_000, "210.0 of about 200.0 MB, 21.0 MB/s"),
    ],
)
def test_pace(clock: list[float], after: float, done: int, said: str) -> None:
    work = pace.Pace(200_000_000)
    clock[0] += after
    assert work.at(done) == said


def test_a_total_that_is_unknown(clock: list[float]) -> None:
    work = pace.Pace(0)
    clock[0] += 2
    assert work.at(10_000_000) == "10.0 MB, 5.0 MB/s"


def database(sizes: dict[str, int]) -> Database:
    empty: dict[str, str] = {}
    return Database(
        owner="o", encoding="UTF8", locale_provider="libc", locale="C", extensions=empty,
        extension_schemas=empty, grants=(), settings=(), name="agent_memory", kind="memory",
        file="f", bytes=1, sha256="", revision=None, dimensions=None, embedder=None, tables=(),
        indexes=(), constraints=(), sizes=sizes,
    )  # fmt: skip


LINES = [
    "pg_restore: connecting to database for restore",
    'pg_restore: creating TABLE "public.episodes"',
    'pg_restore: processing data for table "public.episodes"',
    'pg_restore: creating CONSTRAINT "public.episodes episodes_pkey"',
    'pg_restore: creating INDEX "public.idx_episodes_embedding"',
    'pg_restore: creating VIEW "public.recent"',
]


def test_a_restore_is_weighed_by_what_its_parts_took(clock: list[float]) -> None:
    said: list[str] = []
    sizes = {
        "public.episodes": 60_000_000,
        "public.episodes_pkey": 4_000_000,
        "public.idx_episodes_embedding": 40_000_000,
    }
    tell = _Teller(said.append, database(sizes), jobs=1)
    for line in LINES:
        clock[0] += 6
        tell(line)
    assert said == [
        "restoring agent_memory: creating TABLE public.episodes, 0.0 of about 104.0 MB",
        "restoring agent_memory: processing data for table public.episodes, 0.0 of about 104.0 MB",
        (
            "restoring agent_memory: creating CONSTRAINT public.episodes episodes_pkey, "
            "60.0 of about 104.0 MB, 2.5 MB/s, about 18 s left"
        ),
        (
            "restoring agent_memory: creating INDEX public.idx_episodes_embedding, "
            "64.0 of about 104.0 MB, 2.1 MB/s, about 19 s left"
        ),
        (
            "restoring agent_memory: creating VIEW public.recent, "
            "104.0 of about 104.0 MB, 2.9 MB/s, about 0 s left"
        ),
    ]


def test_a_backup_made_before_sizes_were_kept_says_what_it_does(clock: list[float]) -> None:
    said: list[str] = []
    _Teller(said.append, database({}), jobs=2)(LINES[2])
    assert said == ["restoring agent_memory: processing data for table public.episodes"]
