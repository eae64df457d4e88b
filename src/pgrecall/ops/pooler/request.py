"""What the caller wants the pooler to be like, checked as far as that needs no server."""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgrecall.errors import InvalidInput
from pgrecall.ops.provision.credentials import role_name

_SETTING = re.compile(r"[a-z][a-z0-9_]*")
_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerRequest:
    """What the pooler is to be like.

    Attributes:
        admin_dsn: Connection string of a superuser, to the server itself; never stored.
        database: The memory's database.
        directory: Where the files go.
        also: Other databases that it serves.
        host: How PgBouncer reaches the server, if not as ``admin_dsn`` does.
        port: As above.
        listen_addr: Where it listens; None for everywhere, or for this machine only where the
            server is reached over loopback only.
        listen_port: TCP port that it listens on.
        max_client_conn: Clients at a time.
        default_pool_size: Server connections for each pair of database and role.
        admin_users: Roles that may command it in its console.
        pgbouncer_version: Its version, such as ``"1.24.0"``; None asks the one that is installed.
        settings: Any of its settings, which win over ours.
        owner: System user that gets the files; needs root.
        reset_password: Give the pooler's role a new password.
        unchecked: Leave out the look whether PgBouncer would reach this very server.
    """

    admin_dsn: str = field(repr=False)
    database: str
    directory: Path
    also: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    listen_addr: str | None = None
    listen_port: int = 6432
    max_client_conn: int = 200
    default_pool_size: int = 25
    admin_users: tuple[str, ...] = ()
    pgbouncer_version: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
    reset_password: bool = False
    unchecked: bool = False

    def __post_init__(self) -> None:
        for name, number in (("--listen-port", self.listen_port), ("--port", self.port)):
            if number is not None and number not in _PORTS:
                raise InvalidInput(f"{name} is {number}", hint="a port lies between 1 and 65535")
        for name, number in (
            ("--max-client-conn", self.max_client_conn),
            ("--default-pool-size", self.default_pool_size),
        ):
            if number < 1:
                raise InvalidInput(f"{name} is {number}", hint="give at least 1")
        for text in (self.host, self.listen_addr, *self.also, *self.admin_users):
            if text is not None and (not text.strip() or not text.isprintable()):
                raise InvalidInput(f"{text!r} is no name", hint="use printable characters")
        if self.host is not None and "," in self.host:
            raise InvalidInput(
                f"--host names several hosts: {self.host}",
                hint="PgBouncer would send writes to all of them in turn; name the primary",
            )
        if self.owner is not None:
            _check_user(self.owner)

    @property
    def role(self) -> str:
        """The role with which PgBouncer asks for its users."""
        return role_name(self.database, "pooler")

    @property
    def monitor(self) -> str:
        """The role that may read its statistics."""
        return role_name(self.database, "monitor")

    @property
    def databases(self) -> tuple[str, ...]:
        """All databases that it serves, each once."""
        return tuple(dict.fromkeys((self.database, *self.also)))


def _check_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise InvalidInput(
            f"there is no system user {name!r}", hint="name the user that PgBouncer runs as"
        ) from None


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """Return PgBouncer's settings that are given as ``name=value``.

    Raises:
        InvalidInput: One is not of that form.
    """
    settings = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not _SETTING.fullmatch(name) or not value.isprintable():
            raise InvalidInput(
                f"{text!r} is no setting",
                hint="write it as name=value, such as reserve_pool_size=5",
            )
        settings[name] = value
    return settings
