"""Whether something waits on an idle connection's socket."""

from __future__ import annotations

import select


def has_input(file_descriptor: int) -> bool:
    """Tell whether an idle socket has something to read: a notice, or the server's farewell."""
    poller = select.poll()
    poller.register(file_descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poller.poll(0))
