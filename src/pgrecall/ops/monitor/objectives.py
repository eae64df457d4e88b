"""What is promised of a memory in operation, as numbers; alerts and dashboards follow from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from pgrecall.errors import InvalidInput

Kind = Literal["seconds", "ratio", "days", "duration", "factor"]

# As Prometheus reads it: larger units first.
_DURATION = re.compile(
    "".join(f"(?:[0-9]+{unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms"))
)
_SIZES = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """The objectives; ``docs/explanation/objectives.md`` says why these numbers.

    Attributes:
        recall_p95_seconds: Seconds within which 95 of 100 recalls are answered, embedding aside.
        failure_ratio: Highest part of operations that fail by database or embedder, 0 to 1.
        embeddings_age_seconds: Seconds after which an episode or knowledge has its vector.
        index_recall_ratio: Lowest part of the truly nearest that the index finds, 0 to 1.
        backup_age_seconds: Seconds since the last good backup, at most.
        backup_duration_seconds: Seconds that a backup takes, at most.
        restore_drill_age_seconds: Seconds since a backup was last restored for trial, at most.
        pool_wait_seconds: Seconds that a call waits for a connection of its pool, on average.
        pooler_wait_seconds: Seconds that a client waits for a server connection of PgBouncer.
        connections_ratio: Highest part of the server's connections in use, 0 to 1.
        disk_days_left: Days until the disk is full, at least, at the pace of ``disk_window``.
        disk_free_ratio: Lowest part of the disk that is free, 0 to 1, whatever the pace.
        sample_age_seconds: Seconds since the sampler last wrote, at most.
        window: Time over which rates, quantiles and means are taken; a Prometheus duration.
        disk_window: Time over which the disk's pace is taken; a Prometheus duration.
        for_factor: Multiplies how long each condition must hold before its alert fires; 0 for at
            once.
    """

    recall_p95_seconds: float = field(default=0.1, metadata={"kind": "seconds"})
    failure_ratio: float = field(default=0.05, metadata={"kind": "ratio"})
    embeddings_age_seconds: float = field(default=900, metadata={"kind": "seconds"})
    index_recall_ratio: float = field(default=0.95, metadata={"kind": "ratio"})
    backup_age_seconds: float = field(default=93_600, metadata={"kind": "seconds"})
    backup_duration_seconds: float = field(default=3600, metadata={"kind": "seconds"})
    restore_drill_age_seconds: float = field(default=691_200, metadata={"kind": "seconds"})
    pool_wait_seconds: float = field(default=0.1, metadata={"kind": "seconds"})
    pooler_wait_seconds: float = field(default=1, metadata={"kind": "seconds"})
    connections_ratio: float = field(default=0.8, metadata={"kind": "ratio"})
    disk_days_left: float = field(default=7, metadata={"kind": "days"})
    disk_free_ratio: float = field(default=0.05, metadata={"kind": "ratio"})
    sample_age_seconds: float = field(default=600, metadata={"kind": "seconds"})
    window: str = field(default="5m", metadata={"kind": "duration"})
    disk_window: str = field(default="6h", metadata={"kind": "duration"})
    for_factor: float = field(default=1, metadata={"kind": "factor"})

    def __post_init__(self) -> None:
        for name, kind in kinds().items():
            problem = _problem(kind, getattr(self, name))
            if problem:
                raise InvalidInput(
                    f"objective {name} is {getattr(self, name)!r}, {problem}",
                    hint=f"the default is {_DEFAULTS[name]}",
                )


def kinds() -> dict[str, Kind]:
    """Return every objective's name with the kind of its value."""
    return {item.name: item.metadata["kind"] for item in fields(Objectives)}


def _problem(kind: Kind, value: object) -> str | None:
    if kind == "duration":
        if not isinstance(value, str) or not _DURATION.fullmatch(value) or not seconds_of(value):
            return "which is no duration such as 5m or 90s"
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "which is no number"
    if kind == "ratio":
        return None if 0 < value <= 1 else "which is no part between 0 and 1"
    lowest_allowed = kind == "factor"
    if 0 < value < float("inf") or (lowest_allowed and value == 0):
        return None
    return "which is negative or infinite" if lowest_allowed else "which is not above 0"


_DEFAULTS = {item.name: item.default for item in fields(Objectives)}


def parse_objectives(assignments: Iterable[str]) -> Objectives:
    """Return the defaults with some of them replaced.

    Args:
        assignments: Texts such as ``"backup_age_seconds=7200"`` or ``"window=1m"``; of several for
            one objective the last holds.

    Raises:
        InvalidInput: There is no such objective, or it cannot have this value.
    """
    known = kinds()
    changes: dict[str, float | str] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not sign or name not in known:
            raise InvalidInput(
                f"objective {text!r} names none that exists" if sign else f"{text!r} has no value",
                hint=f"write NAME=VALUE; the names are {', '.join(known)}",
            )
        changes[name] = value if known[name] == "duration" else _number(name, value)
    return replace(Objectives(), **changes)  # type: ignore[arg-type]


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InvalidInput(
            f"objective {name} is {value!r}, which is no number",
            hint=f"the default is {_DEFAULTS[name]}",
        ) from error


def seconds_of(duration: str) -> float:
    """Return the seconds of a Prometheus duration such as ``"1h30m"``."""
    parts = re.findall(r"([0-9]+)(ms|[smhdwy])", duration)
    return sum(int(number) * _SIZES[unit] for number, unit in parts)
