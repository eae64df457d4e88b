"""`pgrecall monitor`: serves the metrics of a database and samples it, until told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.ops.monitor.collectors import DATABASE, Source
from pgrecall.ops.monitor.exposition import Exposition, Troubles
from pgrecall.ops.monitor.host import Host
from pgrecall.ops.monitor.link import Link
from pgrecall.ops.monitor.operations import Operations
from pgrecall.ops.monitor.pooler import Pooler, console_dsn
from pgrecall.ops.monitor.sampler import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRequest:
    """What is watched, and how; times in seconds.

    Attributes:
        dsn: Connection string of the monitor role; a pooler is fine.
        listen: Address at which the metrics are served.
        port: Port there; 0 takes one that is free.
        interval: Between samples.
        probe_interval: Between probes of recall; 0 makes none.
        probe_budget: How long the exact searches of a probe may take.
        operations_lag: How old a row of ``agent_memory_metrics`` must be to be counted.
        timeout: How long a scrape may take, and a statement of the sampler.
        disk: A path on the disk of the server's data, where the monitor cannot find it by itself.
        pooler_dsn: Where PgBouncer is, to watch its pools; without user it is asked as the role of
            ``dsn``.
    """

    dsn: str = field(repr=False)
    listen: str = "127.0.0.1"
    port: int = 9188
    interval: float = 60.0
    probe_interval: float = 300.0
    probe_budget: float = 5.0
    operations_lag: float = 30.0
    timeout: float = 8.0
    disk: Path | None = None
    pooler_dsn: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("interval", "probe_budget", "timeout"):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} is {getattr(self, name)}", hint="give more than 0")
        for name in ("probe_interval", "operations_lag"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} is {getattr(self, name)}", hint="give 0 or more")


class Monitor:
    """Collectors and sampler of one database. Close it when done.

    Args:
        request: What is watched.
    """

    def __init__(self, request: MonitorRequest) -> None:
        self._request = request
        self._troubles = Troubles()
        # Two connections: a scrape does not wait for a probe.
        self._links = [Link(request.dsn, timeout_seconds=request.timeout) for _ in range(2)]
        self._host = Host(request.disk)
        self._pooler = (
            None
            if request.pooler_dsn is None
            else Pooler(console_dsn(request.pooler_dsn, request.dsn))
        )
        self.registry = CollectorRegistry()
        self.registry.register(
            Exposition(
                self._links[0],
                self._sources(),
                self._troubles,
                budget_seconds=request.timeout,
                pooler=self._pooler,
            )
        )
        self.sampler = Sampler(
            link=self._links[1],
            host=self._host,
            troubles=self._troubles,
            interval_seconds=request.interval,
            probe_interval_seconds=request.probe_interval,
            probe_budget_seconds=request.probe_budget,
        )

    def _sources(self) -> tuple[Source, ...]:
        operations = Operations(lag_seconds=self._request.operations_lag)
        sources = (
            *DATABASE,
            Source(name="host", collect=self._host.collect),
            Source(name="operations", collect=operations.collect),
        )
        # The slow ones last, so that they leave time for the others.
        return tuple(sorted(sources, key=lambda source: source.age_seconds))

    def scrape(self) -> str:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry).decode()

    def close(self) -> None:
        """Close the connections."""
        for link in (*self._links, *(() if self._pooler is None else (self._pooler,))):
            link.close()


def run(request: MonitorRequest, stop: threading.Event, announce: Callable[[str], None]) -> None:
    """Serve and sample until ``stop`` is set; a database that is away is waited for.

    Args:
        request: What is watched.
        stop: Ends it.
        announce: Called with the address when metrics are served.

    Raises:
        ConfigurationError: Metrics cannot be served at that address.
    """
    monitor = Monitor(request)
    try:
        with _served(monitor, request) as port:
            host = f"[{request.listen}]" if ":" in request.listen else request.listen
            announce(f"http://{host}:{port}/metrics")
            monitor.sampler.run(stop)
    finally:
        monitor.close()


@contextmanager
def _served(monitor: Monitor, request: MonitorRequest) -> Iterator[int]:
    try:
        server, thread = start_http_server(request.port, request.listen, monitor.registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served at {request.listen}:{request.port}: "
            f"{error.strerror or error}",
            hint="choose another address with --listen or another port with --port; 0 takes a "
            "free one",
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
