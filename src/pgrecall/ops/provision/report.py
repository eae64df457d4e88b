"""What a provisioning run did, or would do, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["created", "changed", "unchanged", "would create", "would change"]
Progress = Callable[[str], None]
"""Receives one line of text for each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was looked at.

    Attributes:
        what: Its kind, such as ``"role"``.
        target: Its name.
        state: What became of it.
        detail: More about it; may be empty.
    """

    what: str
    target: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """The outcome of ``init``.

    Attributes:
        database: Name of the database.
        dimensions: Dimensions of its embeddings.
        revision: Revision of the schema afterwards; None if there is none (a dry run).
        steps: Everything looked at, in order.
        reduced: What this server or administrator does not allow, each with its remedy.
        notes: What was left alone and deserves a look, each with its remedy.
        services: Names of the libpq services that lead to the database.
        adopted: True when a schema made by hand was taken over.
        dry_run: True when nothing was done.
    """

    database: str
    dimensions: int
    revision: str | None
    steps: tuple[Step, ...]
    reduced: tuple[str, ...]
    notes: tuple[str, ...]
    services: tuple[str, ...]
    adopted: bool
    dry_run: bool

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or would be."""
        return any(step.state != "unchanged" for step in self.steps)


@dataclass(slots=True, kw_only=True)
class Journal:
    """Carries out steps, or only notes them in a dry run."""

    dry_run: bool
    progress: Progress | None = None
    steps: list[Step] = field(default_factory=list)
    reduced: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def create(self, what: str, target: str, act: Callable[[], object], detail: str = "") -> None:
        """Create something that isn't there."""
        if not self.dry_run:
            act()
        self._add(what, target, "would create" if self.dry_run else "created", detail)

    def change(self, what: str, target: str, act: Callable[[], object], detail: str = "") -> None:
        """Change something that is there."""
        if not self.dry_run:
            act()
        self._add(what, target, "would change" if self.dry_run else "changed", detail)

    def unchanged(self, what: str, target: str, detail: str = "") -> None:
        """Note that something is as it should be."""
        self._add(what, target, "unchanged", detail)

    def _add(self, what: str, target: str, state: State, detail: str) -> None:
        self.steps.append(Step(what=what, target=target, state=state, detail=detail))
        if self.progress is not None:
            self.progress(f"{what} {target}: {state}" + (f" ({detail})" if detail else ""))
