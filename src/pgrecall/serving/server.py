"""`pgrecall serve`: listens, serves until told to stop, and ends what is begun."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING

import uvicorn

from pgrecall._async.memory import AsyncMemory
from pgrecall._async.runtime import call_blocking
from pgrecall.config import Settings
from pgrecall.embedding.base import Embedder
from pgrecall.embedding.registry import DEFAULT, get_embedder
from pgrecall.errors import ConfigurationError
from pgrecall.serving.app import EMBEDDING, MEMORY, UNHURRIED, make_app
from pgrecall.serving.guard import Doors
from pgrecall.serving.limits import Limits
from pgrecall.serving.served import Served
from pgrecall.serving.store import Store
from pgrecall.serving.work import Embedding
from pgrecall.targets import is_configured, resolve_dsn

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

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
        settings: Where to listen, the database, the embedder, the limits.
        stop: Set if a signal came before uvicorn took them.
        announce: Called with the address when requests are taken.

    Raises:
        ConfigurationError: It cannot listen there, or there is nothing to serve.
        MissingExtra: The embedder's packages are not installed.
        PgrecallError: The memory cannot be opened.
    """
    return asyncio.run(_run(settings, stop, announce))


async def _run(settings: Settings, stop: threading.Event, announce: Callable[[str], None]) -> Ended:
    idle = True
    async with _opened(settings) as served:
        guarded = served is not None and await served.store.needs_keys()
        host = settings.serve_host
        with listen(host, settings.serve_port, guarded=guarded, memory=served is not None) as bound:
            embedding = _embedding(settings, served)
            app = make_app(
                embedding,
                (*(EMBEDDING if embedding else ()), *(MEMORY if served else ())),
                served=served,
                doors=_doors(settings, served, bound),
                limits=Limits.of(settings),
                mcp=_mcp(served),
            )
            config = uvicorn.Config(
                app,
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
                await _Server(config, stop, lambda: announce(_address(bound))).serve([bound])
            finally:
                idle = embedding is None or embedding.close()
    if not idle:
        logger.warning("ended amid the work of requests, after %d s", settings.serve_drain)
    return Ended(idle)


def wants_memory(settings: Settings) -> bool:
    """Whether the memory is served: where a database is configured, unless told otherwise."""
    return is_configured(settings) if settings.serve_memory is None else settings.serve_memory


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Served | None]:
    """Open the memory that is to be served, if one is."""
    if not await call_blocking(wants_memory, settings):
        yield None
        return
    dsn = await call_blocking(resolve_dsn, settings)
    if find_spec("prometheus_client") is not None:
        settings = settings.model_copy(update={"prometheus": True})  # for /metrics
    async with await AsyncMemory.open(dsn, settings=settings) as memory:
        yield Served(memory, Store(memory), settings, dsn)


def _doors(settings: Settings, served: Served | None, bound: socket.socket) -> Doors:
    loopback = ip_address(bound.getsockname()[0]).is_loopback
    names = settings.serve_allowed_hosts or ("" if loopback else "*")
    return Doors(
        store=None if served is None else served.store,
        hosts=frozenset(name.strip().lower() for name in names.split(",") if name.strip()),
        loopback=loopback,
        requests=settings.serve_max_requests,
        seconds=settings.serve_request_timeout if served is not None else None,
        unhurried=UNHURRIED,
    )


def _mcp(served: Served | None) -> MCPServer | None:
    """Return what answers at ``/mcp``, where a memory is served and the extra is installed."""
    if served is None or find_spec("mcp") is None:
        return None
    from pgrecall.serving.mcp.server import make_mcp

    return make_mcp(served.memory)


def _embedding(settings: Settings, served: Served | None) -> Embedding | None:
    """Return what embeds texts; None for a memory whose embedder makes no vectors."""
    limits = Limits.of(settings)
    if served is None:
        spec = settings.embedder or DEFAULT
        return Embedding(_embedder(spec, settings), limits, spec)
    embedder = served.memory.embedder
    return Embedding(embedder, limits, settings.embedder or "") if embedder.available else None


def listen(host: str, port: int, *, guarded: bool = False, memory: bool = False) -> socket.socket:
    """Return a socket that is bound, on this machine alone unless keys are needed.

    Args:
        host: Its address.
        port: Its port; 0 takes a free one.
        guarded: Whether whoever asks needs a key.
        memory: Whether a memory is served, for which there can be keys.

    Raises:
        ConfigurationError: There is no such address, it is taken, or it can be reached from
            other machines and no key is needed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"there is no address {host!r} to listen on: {error}",
            hint="choose 127.0.0.1, ::1 or localhost with --host",
        ) from error
    family, kind, protocol, _, address = found[0]
    if not guarded and not ip_address(address[0]).is_loopback:
        what = "there are no keys: anyone there could use the memory"
        alone = "who asks is not checked: anyone there could use the embedder"
        raise ConfigurationError(
            f"{host} can be reached from other machines, and {what if memory else alone}",
            hint="make a key first: pgrecall keys create NAME"
            if memory
            else "listen on 127.0.0.1 with --host; for other machines, put a proxy that checks "
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
