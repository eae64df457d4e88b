"""The text of the two files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pgrecall.ops.pooler.place import Place

MARK = "; Made by pgrecall pooler config"
"""What the first line of a file of ours begins with."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:@-]+")


def render_configuration(
    databases: Sequence[str], place: Place, settings: Mapping[str, str]
) -> str:
    """Return the text of ``pgbouncer.ini``; there is no secret in it.

    Args:
        databases: Names that clients ask for, each the name on the server as well.
        place: The server.
        settings: Everything in section ``[pgbouncer]``, in order.
    """
    lines = [f"{MARK}, which replaces it: change its options instead.", "[databases]"]
    for name in databases:
        target = {"host": place.host, "port": str(place.port), "dbname": name}
        words = " ".join(f"{key}={_value(value)}" for key, value in target.items())
        lines.append(f"{_name(name)} = {words}")
    lines += [
        "",
        "[pgbouncer]",
        *(f"{name} = {value}".rstrip() for name, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def render_users(users: Mapping[str, str]) -> str:
    """Return the text of ``userlist.txt``, a secret: names with passwords or verifiers."""
    lines = [
        f"{MARK}: a SECRET, with the password of its role.",
        "; Only the user that PgBouncer runs as may read it. All others are asked of the server.",
        *(f"{_quoted(name)} {_quoted(secret)}" for name, secret in users.items()),
    ]
    return "\n".join(lines) + "\n"


def _name(text: str) -> str:
    return text if _PLAIN_NAME.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _value(text: str) -> str:
    return text if _PLAIN_VALUE.fullmatch(text) else "'" + text.replace("'", "''") + "'"
