"""The libpq service file and password file that lead each role to its database.

Both are ordinary libpq files, so ``psql`` and every other client can use them::

    PGSERVICEFILE=.../pg_service.conf psql service=pgrecall_app

What others wrote into them is kept. They are replaced in one step and readable by their owner
only.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgrecall.config import Settings
from pgrecall.driver.connecting import CONNECT_TIMEOUT
from pgrecall.driver.patience import transport_options
from pgrecall.errors import ConfigurationError

ROLES = ("owner", "app", "readonly", "monitor", "backup")
"""The roles of a database, by what they are for."""

# How the administrator reaches the server, without who they are.
_CARRIED = (
    "host", "hostaddr", "port", "sslmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni",
    "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding",
    "gssencmode", "require_auth", "target_session_attrs", "load_balance_hosts", "connect_timeout",
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
)  # fmt: skip
_PASSWORD_BYTES = 24


def service_name(role: str) -> str:
    """Return the service of a role: ``pgrecall_app`` for ``app``."""
    return f"pgrecall_{role}"


def new_password() -> str:
    """Return a random password of 192 bits that needs no quoting anywhere."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def carried_parameters(admin_dsn: str, connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return how ``connection`` reaches its server, for the services of other roles.

    What the administrator's own service file or environment contributed is included, user and
    password are not, and neither is what our own connections add: drivers other than libpq refuse
    parameters that they don't know.
    """
    written = conninfo_to_dict(admin_dsn)
    effective = connection.info.get_parameters()
    if written.get("host") or written.get("hostaddr"):
        # The driver tries several hosts one by one, with the address it looked up for each, so the
        # connection itself knows only the one that answered.
        for name in ("host", "hostaddr"):
            effective.pop(name, None)
        effective |= {
            name: str(written[name]) for name in ("host", "hostaddr", "port") if written.get(name)
        }
    else:
        effective["host"] = connection.info.host
        effective.pop("hostaddr", None)
    effective.setdefault("port", str(connection.info.port))
    added = transport_options(admin_dsn, connect_timeout=CONNECT_TIMEOUT)
    return {name: effective[name] for name in _CARRIED if name in effective and name not in added}


def role_name(database: str, role: str) -> str:
    """Return the PostgreSQL role for what ``role`` is for: ``agent_memory_app`` for ``app``."""
    return f"{database}_{role}"


def dsn_for(settings: Settings, role: str) -> str:
    """Return a full connection URL for a role, password included.

    Args:
        settings: Where the service and password files lie.
        role: One of :data:`ROLES`.

    Raises:
        ConfigurationError: No such role, or ``init`` has not written its entry or password.
    """
    if role not in ROLES:
        raise ConfigurationError(f"no role {role!r}", hint=f"known are {', '.join(ROLES)}")
    service = read_services(settings.service_file).get(service_name(role))
    if service is None:
        raise ConfigurationError(
            f"no service {service_name(role)!r} in {settings.service_file}",
            hint="run: pgrecall init, or set PGRECALL_DSN",
        )
    password = find_password(settings.password_file, service)
    if password is None:
        raise ConfigurationError(
            f"no password of role {service['user']!r} in {settings.password_file}",
            hint="run: pgrecall init --reset-passwords, or set PGRECALL_DSN",
        )
    return _url(service, password)


def _url(service: Mapping[str, str], password: str) -> str:
    hosts = service.get("host", "").split(",")
    ports = service.get("port", "").split(",")
    if len(ports) < len(hosts):
        ports = ports[:1] * len(hosts)
    places = ",".join(
        (f"[{host}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=False)
    )
    others = {
        name: value
        for name, value in service.items()
        if name in _CARRIED and name not in {"host", "port"}
    }
    query = f"?{urlencode(others, quote_via=quote)}" if others else ""
    user, secret = quote(service["user"], safe=""), quote(password, safe="")
    return f"postgresql://{user}:{secret}@{places}/{quote(service['dbname'], safe='')}{query}"


def read_services(path: Path) -> dict[str, dict[str, str]]:
    """Return the services of a libpq service file by name; none when there is no file."""
    services: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    for line in _lines(path):
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            section = services.setdefault(text[1:-1], {})
        elif section is not None and "=" in text and not text.startswith("#"):
            name, value = text.split("=", 1)
            section[name] = value
    return services


def write_services(path: Path, services: Mapping[str, Mapping[str, str]]) -> bool:
    """Add or replace services, keeping the others; an empty mapping removes one.

    Returns:
        Whether the file had to be changed.
    """
    kept: list[str] = []
    ours = False
    for line in _lines(path):
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            ours = text[1:-1] in services
        if not ours:
            kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    for name, parameters in services.items():
        if parameters:
            kept += ["", f"[{name}]", *(f"{key}={value}" for key, value in parameters.items())]
    return _replace(path, kept)


def find_password(path: Path, service: Mapping[str, str]) -> str | None:
    """Return the password that libpq would use for ``service``, or None."""
    wanted = _password_keys(service)
    for line in _lines(path):
        fields = _split(line)
        if len(fields) == 5 and any(
            all(pattern in ("*", value) for pattern, value in zip(fields[:4], key, strict=True))
            for key in wanted
        ):
            return fields[4]
    return None


def write_passwords(path: Path, entries: list[tuple[Mapping[str, str], str | None]]) -> bool:
    """Add or replace the passwords of services, keeping all other lines; None removes one.

    Returns:
        Whether the file had to be changed.
    """
    keys = [key for service, _ in entries for key in _password_keys(service)]
    kept = [line for line in _lines(path) if tuple(_split(line)[:4]) not in keys]
    fresh = [
        ":".join(_escape(part) for part in (*key, password))
        for service, password in entries
        if password is not None
        for key in _password_keys(service)
    ]
    # The first line that matches wins, so ours stand before anyone's wildcards.
    return _replace(path, [*fresh, *kept])


def _password_keys(service: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    hosts = service.get("host", "").split(",")
    ports = service.get("port", "5432").split(",")
    if len(ports) < len(hosts):
        ports = ports[:1] * len(hosts)
    return [
        (host or "localhost", port or "5432", service["dbname"], service["user"])
        for host, port in zip(hosts, ports, strict=False)
    ]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _split(line: str) -> list[str]:
    """Split a line of a password file at the colons that no backslash protects."""
    if line.startswith("#"):
        return []
    fields, field, protected = [], "", False
    for character in line:
        if protected or character not in "\\:":
            field, protected = field + character, False
        elif character == "\\":
            protected = True
        else:
            fields.append(field)
            field = ""
    return [*fields, field]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def _replace(path: Path, lines: list[str]) -> bool:
    """Put ``lines`` in place of the file's in one step, private to its owner."""
    # libpq ignores a password file that others may read, so its mode counts as well.
    private = not path.exists() or path.stat().st_mode & 0o077 == 0
    if lines == _lines(path) and private:
        return False
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
