"""Reading the lines of a source without ever holding more than one of them."""

from __future__ import annotations

import gzip
import io
import os
import threading
import tracemalloc
from pathlib import Path
from typing import IO, Any

import pytest

from pgrecall.errors import InvalidInput, OperationRefused, TransferError
from pgrecall.ops.transfer.reading import Line, LineReader
from pgrecall.ops.transfer.rejects import RejectsFile, default_path


def lines(source: Any, limit: int = 100) -> list[tuple[int, bytes]]:
    with LineReader(source, limit) as reader:
        return [(line.number, line.raw) for line in reader]


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  \t\r\ntwo  \nthree")
    assert lines(path) == [(1, b"one"), (4, b"two  "), (5, b"three")]


def test_an_empty_source_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert lines(tmp_path / "x") == []
    assert lines(io.BytesIO()) == []
    assert lines(io.StringIO()) == []


def opened(kind: str, path: Path) -> IO[Any]:
    match kind:
        case "text":
            return path.open(encoding="utf-8")
        case "binary":
            return path.open("rb")
        case "unbuffered":
            return path.open("rb", buffering=0)
        case "bytes":
            return io.BytesIO(path.read_bytes())
        case _:
            return io.StringIO(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["text", "binary", "unbuffered", "bytes", "string"])
def test_every_kind_of_stream_is_read_and_stays_open(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_text("ä\nß\n", encoding="utf-8")
    with opened(kind, path) as stream:
        assert lines(stream) == [(1, "ä".encode()), (2, "ß".encode())]
        assert not stream.closed


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl"])
def test_packed_input_is_known_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert lines(path) == [(1, b"one"), (2, b"two")]
    assert lines(io.BytesIO(path.read_bytes())) == [(1, b"one"), (2, b"two")]


def test_a_name_that_ends_in_gz_does_not_make_plain_text_packed(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(b"one\n")
    assert lines(tmp_path / "x.gz") == [(1, b"one")]


def test_progress_of_a_packed_file_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(os.urandom(300_000).hex().encode() + b"\nend\n"))
    with LineReader(path, 1_000_000) as reader:
        rest = iter(reader)
        next(rest)
        assert 0 < reader.bytes_read <= path.stat().st_size
        assert list(rest)
        assert reader.bytes_read == reader.total_bytes == path.stat().st_size


def test_a_pipe_has_no_size(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as end:
        end.write(gzip.compress(b"one\n"))
    with os.fdopen(reading, "rb") as start, LineReader(start) as reader:
        assert reader.total_bytes is None
        assert list(reader) == [Line(1, b"one")]
        assert reader.bytes_read == 4


def test_an_overlong_line_does_not_hide_the_next(tmp_path: Path) -> None:
    with LineReader(io.BytesIO(b"a" * 101 + b"\n" + b"b" * 100 + b"\nc"), 100) as reader:
        first, second, third = reader
    assert first.overlong
    assert second == Line(2, b"b" * 100)
    assert third == Line(3, b"c")


def test_an_overlong_line_at_the_end() -> None:
    with LineReader(io.BytesIO(b"a\n" + b"b" * 300_000), 100) as reader:
        assert [(line.number, line.overlong) for line in reader] == [(1, False), (2, True)]
        assert reader.bytes_read == 300_002


def test_an_overlong_line_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(200_000_000)  # NUL bytes on no disk, one line
    tracemalloc.start()
    try:
        with LineReader(path, 1_000_000) as reader:
            (line,) = reader
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert line.overlong
    assert peak < 10_000_000


@pytest.mark.parametrize("damage", ["cut", "garbled", "trailing"])
def test_a_broken_archive_gives_what_is_good_before_the_error(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(b"".join(b"%d\n" % i for i in range(100_000)))
    half = len(packed) // 2
    broken = {
        "cut": packed[:half],
        "garbled": packed[:half] + b"\xff" * 50 + packed[half + 50 :],
        "trailing": packed + b"rubbish",
    }
    (tmp_path / "x").write_bytes(broken[damage])
    seen: list[bytes] = []
    with (
        pytest.raises(TransferError, match="x cannot be read"),
        LineReader(tmp_path / "x") as reader,
    ):
        seen.extend(line.raw for line in reader)
    assert seen[0] == b"0"
    assert len(seen) > 1000


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="missing cannot be read: No such file"):
        lines(tmp_path / "missing")
    with pytest.raises(TransferError, match="Is a directory"):
        lines(tmp_path)
    with pytest.raises(InvalidInput, match="the source is a int"):
        lines(5)


def test_a_lone_surrogate_in_text_becomes_a_line_that_is_no_utf_8() -> None:
    ((_, raw),) = lines(io.StringIO("\ud800"))
    with pytest.raises(UnicodeDecodeError):
        raw.decode()


def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"one\ntwo\n",))
    writer.start()
    assert lines(path) == [(1, b"one"), (2, b"two")]
    writer.join()


def test_rejects_lie_beside_the_source() -> None:
    assert default_path(Path("/d/a.jsonl.gz")) == Path("/d/a.jsonl.gz.rejects.jsonl")
    assert default_path(io.BytesIO()) == Path("import.rejects.jsonl")


def test_a_file_that_holds_something_else_is_never_taken_for_rejects(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text('{"project_id": "apollo"}\n', encoding="utf-8")
    with pytest.raises(OperationRefused, match="holds something else"):
        RejectsFile(path, io.BytesIO())
    with pytest.raises(InvalidInput, match="the source itself"):
        RejectsFile(path, path)
    assert path.read_text(encoding="utf-8") == '{"project_id": "apollo"}\n'


def test_rejects_of_a_former_run_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.rejects.jsonl"
    with RejectsFile(path, io.BytesIO()) as kept:
        kept.add([(Line(3, b"abc"), InvalidInput("bad"))])
        assert kept.path == path
    assert path.read_text(encoding="utf-8") == '{"line": 3, "reason": "bad", "text": "abc"}\n'
    with RejectsFile(path, io.BytesIO()) as kept:
        assert not path.exists()
        assert kept.path is None


def test_full_disk_under_the_rejects(tmp_path: Path) -> None:
    with (
        RejectsFile(Path("/dev/full"), io.BytesIO()) as kept,
        pytest.raises(TransferError, match="/dev/full cannot be written: No space left"),
    ):
        kept.add([(Line(3, b"abc"), InvalidInput("bad"))])
    assert Path("/dev/full").is_char_device()
