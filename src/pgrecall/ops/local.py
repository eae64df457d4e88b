"""Whether the server runs on this machine, where its processes and disk can be looked at."""

from __future__ import annotations

from pathlib import Path

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def is_local(host: str, backend_pid: int) -> bool:
    """Tell whether a server is on this machine.

    A forwarded port looks local too, but a backend is then no process of this machine.

    Args:
        host: Where the connection leads, as ``connection.info.host`` says.
        backend_pid: What ``pg_backend_pid()`` answered on it.
    """
    if not (host.startswith("/") or host in _LOOPBACK):
        return False
    try:
        name = Path(f"/proc/{backend_pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return name == "postgres"
