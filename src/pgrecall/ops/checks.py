"""The result of looking at one thing, shared by ``verify`` and ``doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pgrecall.sql import load

Status: TypeAlias = Literal["passed", "failed", "not configured", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was seen, and what to do about it.

    Attributes:
        id: Stable name, such as ``"TC-DB-004"`` or ``"checksums"``.
        title: What is checked, in words.
        status: ``"failed"`` is a fault; ``"warning"`` works but wants attention;
            ``"not configured"`` means that it does not apply here or could not be seen, and never
            that all is well.
        evidence: What was really seen: versions, plan nodes, timings, names of faulty objects.
        remedy: The command or step that mends it; None when nothing is to be done.
        duration_ms: How long the look took, in milliseconds; None where many looked together.
    """

    id: str
    title: str
    status: Status
    evidence: str
    remedy: str | None = None
    duration_ms: float | None = None

    @property
    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON; the duration is rounded to microseconds."""
        taken = None if self.duration_ms is None else round(self.duration_ms, 3)
        return {**asdict(self), "duration_ms": taken}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look saw: its verdict, its evidence, and what to do about it."""

    status: Status
    evidence: str
    remedy: str | None = None


def exit_code(checks: Iterable[Check]) -> int:
    """Return the process exit code: 1 if any check failed, else 0."""
    return int(any(check.status == "failed" for check in checks))


def build_vector_index(index: str, storage: str = "vector") -> str:
    """Return the statement that builds one of the two vector indexes, in one line.

    Args:
        index: ``idx_episodes_embedding`` or ``idx_knowledge_embedding``.
        storage: Type of the column: ``vector`` or ``halfvec``.
    """
    table = index.removesuffix("_embedding").replace("idx_", "agent_")
    text = load("remedies")["build_vector_index"].format(
        index=index, table=table, operators=f"{storage}_cosine_ops"
    )
    return " ".join(text.split())


def in_bytes(count: int) -> str:
    """Return a number of bytes in words, such as ``"410 MB"``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"
