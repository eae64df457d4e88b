"""Keys of those who reach the memory over HTTP: made, listed and revoked by its owner.

``pgrecall serve`` runs as the application's role, which can look keys up and cannot make any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pgrecall.core.checks import check_choice, check_ttl
from pgrecall.core.documents import check_text
from pgrecall.core.filters import check_texts
from pgrecall.core.keys import digest, narrowed, new_token, state
from pgrecall.driver import Statements, connect, translate
from pgrecall.errors import InvalidInput, NotFound
from pgrecall.sql import load

SCOPES = ("read", "write", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key, without its secret.

    Attributes:
        key_id: Its identifier, which its token begins with.
        name: Whose it is, or what for.
        scopes: What it may do: ``read``, ``write``, ``admin``; none contains another.
        projects: Whose memories it reaches; None for all.
    """

    key_id: str
    name: str
    scopes: Sequence[str]
    projects: Sequence[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def state(self) -> str:
        """``valid``, ``revoked`` or ``expired``."""
        return state(self.revoked_at, self.expires_at, datetime.now(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey(Key):
    """A key that was just made.

    Attributes:
        token: What its owner sends; it is not stored, and never seen again.
    """

    token: str = field(repr=False)


def create_key(
    owner_dsn: str,
    name: str,
    *,
    scopes: Sequence[str] = ("read", "write"),
    projects: Sequence[str] = (),
    lifetime: timedelta | float | None = None,
) -> NewKey:
    """Make a key.

    Args:
        owner_dsn: Connection string of the owner.
        name: Whose it is, or what for, up to 50 characters.
        scopes: What it may do.
        projects: Whose memories it reaches; those of all unless given.
        lifetime: How long it is valid: a timedelta, or seconds; until revoked unless given.

    Raises:
        InvalidInput: A value cannot be meant.
        DatabaseError: It could not be stored.
    """
    for scope in scopes:
        check_choice(scope, SCOPES, "scope")
    if not scopes:
        raise InvalidInput("a key without scopes can do nothing", hint="give one scope or more")
    ttl = check_ttl(lifetime, "lifetime")
    token = new_token()
    values = {
        "key_id": token.key_id,
        "name": check_text(name, name="name", max_length=50),
        "digest": digest(token),
        "scopes": narrowed(scopes, SCOPES),
        "projects": [*dict.fromkeys(check_texts(projects, "projects"))] or None,
        "expires_at": None if ttl is None else datetime.now(UTC) + ttl,
    }
    with _statements(owner_dsn) as run:
        return NewKey(**run.one("create", values), token=token.text())


def list_keys(owner_dsn: str) -> list[Key]:
    """Return all keys, also those that were revoked, the oldest first.

    Raises:
        DatabaseError: They could not be read.
    """
    with _statements(owner_dsn) as run:
        return [Key(**row) for row in run.rows("list")]


def revoke_key(owner_dsn: str, key_id: str) -> Key:
    """End a key for ever; ending one again changes nothing.

    Args:
        owner_dsn: Connection string of the owner.
        key_id: Its identifier.

    Raises:
        NotFound: There is no such key.
        DatabaseError: It could not be stored.
    """
    with _statements(owner_dsn) as run:
        rows: list[dict[str, Any]] = run.rows("revoke", {"key_id": key_id})
    if not rows:
        raise NotFound(
            f"there is no key {key_id!r}", hint="pgrecall keys list shows those that there are"
        )
    return Key(**rows[0])


@contextmanager
def _statements(owner_dsn: str) -> Iterator[Statements]:
    try:
        with connect(owner_dsn, purpose="keys") as connection:
            yield Statements(connection, load("keys"))
    except psycopg.Error as error:
        raise translate(error, writing=True) from error
