"""`pgrecall serve`: listens on this machine, serves until told to stop, and ends what is begun."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import uvicorn

from pgrecall.config import Settings
from pgrecall.embedding.base import Embedder
from pgrecall.embedding.registry import DEFAULT, get_embedder
from pgrecall.errors import ConfigurationError
from pgrecall.serving.app import make_app
from pgrecall.serving.limits import Limits
from pgrecall.serving.work import Embedding

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended.

    Attributes:
        idle: False if a thread still embeds, which the end of the process would wait for.
    """

    idle: bool


def run(settings: Settings, stop: threading.Event, announce: Callable[[str], None]) -> Ended:
    """Serve until a signal comes, then finish the requests that are under way.

    Runs in the main thread. uvicorn takes the signals, and gives them back to whom they had before.

    Args:
        settings: Where to listen, the embedder, the limits.
        stop: Set if a signal came before uvicorn took them.
        announce: Called with the address when requests are taken.

    Raises:
        ConfigurationError: It cannot listen there, or the embedder makes no vectors.
        MissingExtra: The embedder's packages are not installed.
    """
    with listen(settings.serve_host, settings.serve_port) as listening:
        spec = settings.embedder or DEFAULT
        embedding = Embedding(_embedder(spec, settings), Limits.of(settings), spec)
        config = uvicorn.Config(
            make_app(embedding),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.serve_drain,
        )
        try:
            _Server(config, stop, lambda: announce(_address(listening))).run([listening])
        finally:
            idle = embedding.close()
    if not idle:
        logger.warning("ended amid the work of requests, after %d s", settings.serve_drain)
    return Ended(idle)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound on this machine, for this machine alone.

    Raises:
        ConfigurationError: The address is no such one, or is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"there is no address {host!r} to listen on: {error}",
            hint="choose 127.0.0.1, ::1 or localhost with --host",
        ) from error
    family, kind, protocol, _, address = found[0]
    if not ip_address(address[0]).is_loopback:
        raise ConfigurationError(
            f"{host} can be reached from other machines, and who asks is not checked: anyone "
            "there could use the embedder",
            hint="listen on 127.0.0.1 with --host; for other machines, put a proxy that checks "
            "who asks before it, or lead there through SSH",
        )
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            hint="choose another port with --port; 0 takes a free one",
        ) from error
    return listening


def _embedder(spec: str, settings: Settings) -> Embedder:
    embedder = get_embedder(spec, settings=settings)
    if not embedder.available:
        raise ConfigurationError(
            f"the embedder {spec!r} makes no vectors, so there is nothing to serve",
            hint="choose another with --embedder or PGRECALL_EMBEDDER, such as builtin",
        )
    return embedder


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's, which tells when it is ready."""

    def __init__(
        self, config: uvicorn.Config, stop: threading.Event, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self._stop.is_set():
            self.should_exit = True
        else:
            self._ready()
