"""What the converters share: reading large JSON piece by piece, refusing, writing episodes."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

CHUNK = 1 << 16
# What PostgreSQL's JSON cannot hold: the NUL character and half of a surrogate pair.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LIMITS = {
    "project_id": 50,
    "agent_version": 20,
    "decision_source": 50,
    "sprint_id": 50,
    "external_id": 200,
}

Episode = dict[str, Any]
Convert = Callable[[str | int, Any, argparse.Namespace], Episode | None]


class UnknownFormatError(Exception):
    """The input is not what the converter reads; the message says what was found."""


def entries(stream: TextIO) -> Iterator[tuple[str | int, Any]]:
    """Yield each entry of a JSON array (with its index) or object (with its key), as it is read.

    Only the entry at hand is kept in memory.

    Raises:
        UnknownFormatError: The text is empty, no JSON array or object, or ends too early.
    """
    source = _Source(stream)
    opening = source.character()
    if not opening:
        raise UnknownFormatError("an empty input")
    if opening not in "[{":
        raise UnknownFormatError(f"a text that begins with {source.beginning!r}")
    closing = "]" if opening == "[" else "}"
    for index in range(sys.maxsize):
        if source.peek() == closing:
            source.character()
            break
        if index:
            source.expect(",", f"entry {index}")
        key = source.value(f"entry {index}") if opening == "{" else index
        if opening == "{":
            source.expect(":", f"the key {key!r}")
        yield key, source.value(f"entry {index}")
    if source.peek():
        raise UnknownFormatError(
            f"text after the end of the first JSON value: {source.character()!r}"
        )


class _Source:
    """A window over a text stream, from which JSON values are taken one by one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self._window = ""
        self._position = 0
        self.beginning = ""

    def peek(self) -> str:
        """Return the next character that is not white space; ``""`` at the end."""
        while True:
            rest = re.compile(r"\S").search(self._window, self._position)
            if rest:
                self._position = rest.start()
                return rest[0]
            self._position = len(self._window)
            if not self._read(CHUNK):
                return ""

    def character(self) -> str:
        found = self.peek()
        self._position += len(found)
        return found

    def expect(self, wanted: str, after: str) -> None:
        found = self.character()
        if found != wanted:
            what = repr(found) if found else "the end (is the file complete?)"
            raise UnknownFormatError(f"{what} where {wanted!r} should follow {after}")

    def value(self, name: str) -> Any:
        size = CHUNK
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window, self._position)
                # A number at the edge of the window may go on after it.
                if end < len(self._window) or not self._read(size):
                    self._position = end
                    return value
            except (ValueError, RecursionError) as error:
                if not self._read(size):
                    reason = getattr(error, "msg", str(error))
                    raise UnknownFormatError(f"{name} is broken or cut off: {reason}") from error
            size *= 2

    def _read(self, size: int) -> bool:
        try:
            more = self._stream.read(size)
        except UnicodeDecodeError as error:
            raise UnknownFormatError("bytes that are not UTF-8 text") from error
        self.beginning = self.beginning or more[:40]
        self._window = self._window[self._position :] + more
        self._position = 0
        return bool(more)


def _refuse_constant(name: str) -> None:
    raise UnknownFormatError(f"the number {name}, which JSON does not have")


def storable(value: Any) -> Any:
    """Return ``value`` with every character that PostgreSQL cannot store replaced by U+FFFD."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def quality(reward: object, name: str) -> float:
    """Return a reward as outcome quality.

    Raises:
        UnknownFormatError: It is no number (or truth value) between 0 and 1.
    """
    if not isinstance(reward, int | float) or not math.isfinite(reward) or not 0 <= reward <= 1:
        raise UnknownFormatError(f"{name} with the reward {reward!r}, not a number from 0 to 1")
    return float(reward)


def parser(description: str) -> argparse.ArgumentParser:
    """Return the command line that all converters have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("input", help="the file to read; - for standard input")
    made.add_argument("-o", "--output", default="-", help="the file to write; - for standard out")
    made.add_argument("--project", help="project_id of all episodes, at most 50 characters")
    made.add_argument("--agent-version", help="agent_version, at most 20 characters")
    return made


def run(
    convert: Convert, args: argparse.Namespace, *, expected: str, defaults: tuple[str, str]
) -> int:
    """Convert every entry of ``args.input`` and write the episodes; return the exit code.

    Args:
        convert: Makes an episode of one entry, or None where nothing was decided.
        args: What the command line of ``parser`` gave.
        expected: The format that is read, in words, for the refusal.
        defaults: Project and agent version where the command line gives none.
    """
    args.project = args.project or defaults[0]
    args.agent_version = args.agent_version or defaults[1][: LIMITS["agent_version"]]
    try:
        with _reading(args.input) as source, _writing(args.output) as target:
            summary = _convert_all(convert, args, source, target)
    except UnknownFormatError as error:
        return _refuse(f"found {error}; expected {expected}")
    except BrokenPipeError:
        # The reader of our output went away; so that closing does not fail again:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _refuse(f"{error.strerror}: {error.filename}")
    print(summary, file=sys.stderr)
    return 0


def _convert_all(convert: Convert, args: argparse.Namespace, source: TextIO, target: TextIO) -> str:
    """Write one line for each episode; return the summary."""
    count, total, left_out = 0, 0.0, 0
    seen: set[str] = set()
    for key, entry in entries(source):
        episode = convert(key, entry, args)
        if episode is None:
            left_out += 1
            continue
        _check(episode, seen)
        json.dump(storable(episode), target, ensure_ascii=False, allow_nan=False)
        target.write("\n")
        count += 1
        total += episode["outcome_quality"]
    if not count:
        raise UnknownFormatError("no episode at all")
    skipped = f", {left_out} without any decision left out" if left_out else ""
    return f"{count} episodes, mean reward {total / count:.3f}{skipped}"


def _check(episode: Episode, seen: set[str]) -> None:
    for column, limit in LIMITS.items():
        value = episode.get(column)
        if value is not None and not 0 < len(value) <= limit:
            raise UnknownFormatError(f"{column} {value!r}, not 1 to {limit} characters")
    if episode["external_id"] in seen:
        raise UnknownFormatError(f"{episode['external_id']!r} twice")
    seen.add(episode["external_id"])


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def _reading(path: str) -> Iterator[TextIO]:
    if path == "-":
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")  # type: ignore[union-attr]
        yield sys.stdin
    else:
        with Path(path).open(encoding="utf-8-sig") as stream:
            yield stream


@contextlib.contextmanager
def _writing(path: str) -> Iterator[TextIO]:
    """Open the output; a file appears under its name only when it is complete."""
    target = Path(path)
    if path == "-":
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        sys.stdout.flush()
    elif target.exists() and not target.is_file():
        with target.open("w", encoding="utf-8") as stream:  # a pipe or device: as it comes
            yield stream
    else:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                yield stream
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)  # as an ordinary new file would have
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
