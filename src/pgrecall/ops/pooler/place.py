"""How PgBouncer reaches the server, and whether the server there is the one that is meant."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from pgrecall.driver import Row, Statements, connect_session
from pgrecall.errors import OperationRefused, PgrecallError
from pgrecall.ops.pooler.request import PoolerRequest
from pgrecall.ops.provision import credentials
from pgrecall.ops.provision.session import Session
from pgrecall.sql import load

_PATIENCE_SECONDS = 10
_NOT_CARRIED = (
    "sslcrl", "sslcrldir", "sslnegotiation", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "channel_binding", "require_auth",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The server as PgBouncer reaches it.

    Attributes:
        host: Name, address, or directory of a Unix socket.
        port: Its port.
        way: All of the administrator's way there, as libpq takes it, without user and password.
    """

    host: str
    port: int
    way: Mapping[str, str] = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the server is reached over a socket or loopback, so from this machine only."""
        if self.host.startswith(("/", "@")) or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def dsn(self, database: str, user: str, password: str) -> str:
        """Return a connection string that goes the way that PgBouncer will."""
        return make_conninfo(
            **{"connect_timeout": str(_PATIENCE_SECONDS), **self.way},
            dbname=database,
            user=user,
            password=password,
        )


def place_of(admin: Session, request: PoolerRequest) -> Place:
    """Return where the server is for PgBouncer: as for the administrator unless told otherwise.

    Raises:
        OperationRefused: The administrator's connection string names several hosts.
    """
    way = credentials.carried_parameters(request.admin_dsn, admin.connection)
    host = request.host or way.get("host") or way.get("hostaddr") or "localhost"
    if "," in host:
        raise OperationRefused(
            f"the connection string names several hosts ({host}), and PgBouncer would send writes "
            "to all of them in turn",
            hint="name the primary, or an address that follows it, with --host and --port",
        )
    if request.host is not None or "host" in way:
        way.pop("hostaddr", None)  # PgBouncer has one name for a server
    port = request.port or int(way.get("port", "5432").split(",")[0])
    way |= {"port": str(port), **({} if "hostaddr" in way else {"host": host})}
    return Place(host=host, port=port, way=way)


def tls_settings(place: Place, request: PoolerRequest) -> tuple[dict[str, str], list[str]]:
    """Return how PgBouncer is to secure its way to the server, and what it has no setting for.

    Raises:
        OperationRefused: The certificates are those of the system, which PgBouncer has no name for.
    """
    root = place.way.get("sslrootcert")
    mode = place.way.get("sslmode", "verify-full" if root == "system" else "prefer")
    settings = {"server_tls_sslmode": mode}
    if root == "system":
        if "server_tls_ca_file" not in request.settings:
            raise OperationRefused(
                "sslrootcert=system has no equal in PgBouncer",
                hint="name the file of the system's certificates where PgBouncer runs: "
                "--set server_tls_ca_file=/etc/ssl/certs/ca-certificates.crt",
            )
    elif root is not None or mode.startswith("verify-"):
        default = Path("~/.postgresql/root.crt")
        path = Path(root) if root is not None else default
        settings["server_tls_ca_file"] = str(path.expanduser().absolute())
    lost = [f"{name}={place.way[name]}" for name in _NOT_CARRIED if name in place.way]
    return settings, lost


def check_reachable(place: Place) -> None:
    """Refuse a place where nothing answers, before anything is changed.

    Raises:
        OperationRefused: The name does not resolve, or no server answers there.
    """
    if place.host.startswith(("/", "@")):
        return  # the log-in that follows tells
    try:
        socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OperationRefused(
            f"nothing was changed: the host {place.host!r} does not resolve here: {error}",
            hint="give a name that resolves where PgBouncer runs, such as the full one, with "
            "--host; if this machine cannot know it, add --unchecked",
        ) from error
    try:
        socket.create_connection((place.host, place.port), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        raise OperationRefused(
            f"nothing was changed: nothing answers on {place.host}:{place.port}: {error}",
            hint="correct --host and --port; if the server cannot be reached from this machine, "
            "add --unchecked",
        ) from error


def check_same_server(place: Place, database: str, user: str, password: str, wanted: Row) -> None:
    """Log in as the pooler will, and compare the database with the administrator's.

    Args:
        place: Where the pooler will go.
        database: The database.
        user: The pooler's role.
        password: Its password.
        wanted: What ``identity`` says on the administrator's connection.

    Raises:
        OperationRefused: The log-in fails, or another server answers.
    """
    where = f"{database!r} on {place.host}:{place.port}"
    try:
        with connect_session(
            place.dsn(database, user, password), purpose="pooler config"
        ) as connection:
            found = Statements(connection, load("pooler")).one("identity")
    except (PgrecallError, psycopg.Error) as error:
        reason = error.message if isinstance(error, PgrecallError) else str(error).strip()
        raise OperationRefused(
            f"no files were written: {user} cannot log in to {where}: {reason}",
            hint="see that this is the server meant and that its pg_hba.conf lets that role in; "
            "--reset-password gives it a new password",
        ) from error
    if any(found[key] != wanted[key] for key in ("system", "started", "oid")):
        raise OperationRefused(
            f"no files were written: {where} is another server than the administrator's",
            hint="correct --host and --port",
        )
