"""A TCP proxy that knows PostgreSQL's messages well enough to break a connection at any of them."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Where = Literal["before", "amid", "after"]
How = Literal["rst", "fin", "stall", "pause"]

FRONTEND = {
    "P": "Parse", "B": "Bind", "D": "Describe", "E": "Execute", "S": "Sync", "Q": "Query",
    "p": "Password", "X": "Terminate", "C": "Close", "H": "Flush", "": "Startup",
}  # fmt: skip
BACKEND = {
    "R": "Authentication", "S": "ParameterStatus", "K": "BackendKeyData", "Z": "ReadyForQuery",
    "1": "ParseComplete", "2": "BindComplete", "3": "CloseComplete", "T": "RowDescription",
    "D": "DataRow", "C": "CommandComplete", "E": "ErrorResponse", "N": "NoticeResponse",
    "n": "NoData", "t": "ParameterDescription",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a conversation breaks off: at its nth message, counted from 0.

    ``rst`` and ``fin`` end both connections; ``stall`` forwards nothing any more until the client
    goes; ``pause`` forwards the message, too, but not before ``Proxy.resumed`` is set.
    """

    nth: int
    where: Where = "before"
    how: How = "rst"


class _Frames:
    """Bytes of one direction, a message at a time."""

    def __init__(self, *, frontend: bool) -> None:
        self._names = FRONTEND if frontend else BACKEND
        self._untyped = frontend  # the first message of a client has no type
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        self._buffer += data
        while True:
            head = 0 if self._untyped else 1
            if len(self._buffer) < head + 4:
                return
            (length,) = struct.unpack_from("!I", self._buffer, head)
            if len(self._buffer) < head + length:
                return
            message, self._buffer = self._buffer[: head + length], self._buffer[head + length :]
            kind = message[:head].decode("latin-1")
            self._untyped = False
            yield self._names.get(kind, kind), message


class Proxy:
    """Forwards every message until the armed cut; what is new after it goes through again."""

    def __init__(self, dsn: str) -> None:
        place = conninfo_to_dict(dsn)
        self._target = (str(place["host"]), int(str(place["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        # Without TLS, or the messages could not be told apart.
        self.dsn = make_conninfo(
            dsn, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable"
        )
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._seen: list[str] = []
        self._closing = threading.Event()
        self.fired = threading.Event()
        self.resumed = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    def arm(self, cut: Cut | None) -> None:
        """Count messages from now on, and break the conversation at the one that is meant."""
        with self._lock:
            self._seen.clear()
            self._cut = cut
            self.fired.clear()
            self.resumed.clear()

    @property
    def seen(self) -> list[str]:
        """The messages since ``arm``: ``>`` to the server, ``<`` from it."""
        with self._lock:
            return [*self._seen]

    def close(self) -> None:
        self._closing.set()
        with suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:  # it is being closed
                return
            thread = threading.Thread(target=self._serve, args=(client,), name="proxied")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self._target)
            except OSError:  # there is no server now, so there is none for the client
                return
            with server, suppress(OSError):  # either side may break, which is what we are for
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        ways = {
            client: (server, _Frames(frontend=True), ">"),
            server: (client, _Frames(frontend=False), "<"),
        }
        while not self._closing.is_set():
            readable, _, _ = select.select([client, server], [], [], 0.2)
            for source in readable:
                target, frames, arrow = ways[source]
                data = source.recv(65536)
                if not data:
                    return
                for name, message in frames.feed(data):
                    cut = self._due(arrow + name)
                    if cut is not None and cut.how == "pause":
                        self._pause()
                        cut = None
                    if cut is None:
                        target.sendall(message)
                        continue
                    self._break(cut, message, client, server, target)
                    return

    def _due(self, name: str) -> Cut | None:
        if name == ">Terminate":  # a farewell, that may well come after the next `arm`
            return None
        with self._lock:
            self._seen.append(name)
            cut = self._cut
            if cut is None or len(self._seen) - 1 != cut.nth:
                return None
            self._cut = None
            return cut

    def _pause(self) -> None:
        """Hold everything until it is resumed: time to end one of the two sides."""
        self.fired.set()
        while not self._closing.is_set() and not self.resumed.wait(0.05):
            pass

    def _break(
        self,
        cut: Cut,
        message: bytes,
        client: socket.socket,
        server: socket.socket,
        target: socket.socket,
    ) -> None:
        self.fired.set()  # first, since the client may be back before the next line runs
        if cut.where == "amid":
            target.sendall(message[: max(1, len(message) // 2)])
        elif cut.where == "after":
            target.sendall(message)
        if cut.how == "stall":
            # Nothing is closed and nothing forwarded, until the client has had enough.
            while not self._closing.is_set():
                readable, _, _ = select.select([client], [], [], 0.2)
                if readable and not client.recv(65536):
                    return
        elif cut.how == "rst":
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def proxied(dsn: str) -> Iterator[Proxy]:
    """Give a proxy to where ``dsn`` leads."""
    proxy = Proxy(dsn)
    try:
        yield proxy
    finally:
        proxy.close()
