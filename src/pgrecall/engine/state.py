"""What the embedded server must remember between processes: one JSON file, mode 0600."""

from __future__ import annotations

import dataclasses
import json
import secrets
from pathlib import Path

from pgrecall.engine.files import explained, write_atomically
from pgrecall.errors import EngineError

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state file's content.

    Attributes:
        port: TCP port on 127.0.0.1.
        admin_password: Password of the role ``postgres``; never shown in ``repr``.
        socket_dir: Directory of the Unix socket; None until one was chosen.
        binaries: Name of the binaries last started, such as ``"18.6.3"``; None before that.
        server_version: Version of the server last started, such as ``"18.6"``; None before that.
    """

    port: int
    admin_password: str = dataclasses.field(repr=False)
    socket_dir: str | None = None
    binaries: str | None = None
    server_version: str | None = None


def new_state(port: int) -> State:
    """Return the state of a server that is about to be created, with a random password."""
    return State(port=port, admin_password=secrets.token_urlsafe(32))


def write_state(path: Path, state: State) -> None:
    """Write the state file, whole or not at all.

    Raises:
        EngineError: The file cannot be written.
    """
    document = {"format": FORMAT, **dataclasses.asdict(state)}
    write_atomically(path, json.dumps(document, indent=2) + "\n", 0o600)


def read_state(path: Path) -> State | None:
    """Read the state file; None when there is none.

    Raises:
        EngineError: It belongs to somebody else, is damaged, or was written by a newer version.
    """
    if not _exists(path):
        return None
    with explained("read", path):
        text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
        written_format = document.pop("format")
        if written_format == FORMAT:
            return State(**document)
    except (ValueError, TypeError, KeyError, AttributeError):
        # The parser's own message would quote the text, and a password stands in it.
        raise EngineError(
            f"the state file {path} is damaged",
            hint="restore it from a backup; it holds the administrator's password",
        ) from None
    raise EngineError(
        f"the state file {path} has format {written_format}, this version knows {FORMAT}",
        hint="upgrade pgrecall",
    )


def _exists(path: Path) -> bool:
    with explained("look into", path.parent):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True
