"""What a caller of an interface may do: scopes, and the projects they are for.

Who authenticates a request sets its ``Access`` with ``acting()``; what answers it asks
``current()``. Where nobody sets one (standard input and output, loopback without keys) all is
allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pgrecall.errors import PgrecallError

Scope: TypeAlias = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class Forbidden(PgrecallError):
    """The caller's key does not reach that far; nothing was read or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one caller may do.

    Attributes:
        name: Of the key, for logs.
        scopes: What it may do; none contains another.
        projects: Whose memories it reaches; None for all.
    """

    name: str
    scopes: frozenset[Scope]
    projects: frozenset[str] | None = None

    def require(self, scope: Scope) -> None:
        """Refuse what needs a scope that is not there.

        Raises:
            Forbidden: It is not.
        """
        if scope not in self.scopes:
            raise Forbidden(
                f"this needs a key with the scope {scope!r}; this key has "
                f"{', '.join(sorted(self.scopes)) or 'none'}",
                hint="ask for another key: pgrecall keys create --scope " + scope,
            )

    def require_project(self, project_id: str | None) -> None:
        """Refuse what belongs to a project that is not the caller's.

        Args:
            project_id: The project; None for what belongs to none or to several.

        Raises:
            Forbidden: The caller is restricted to other projects.
        """
        if self.projects is not None and project_id not in self.projects:
            raise Forbidden(
                "this key is for some projects alone, and this is not one of them",
                hint="name one of the key's projects as project_id",
            )


EVERYTHING = Access(name="local", scopes=frozenset(SCOPES))
_current: ContextVar[Access] = ContextVar("pgrecall_access", default=EVERYTHING)


def current() -> Access:
    """Return what the caller of the current task may do."""
    return _current.get()


@contextmanager
def acting(access: Access) -> Iterator[None]:
    """Let what runs within act for this caller."""
    token = _current.set(access)
    try:
        yield
    finally:
        _current.reset(token)
