"""Prometheus instruments, in the registry that the process exposes. Imported only if asked for.

They are the process's, not a memory's: all memories of a process count in the same ones.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import Counter as Sums
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.registry import Collector

from pgrecall.errors import ConfigurationError
from pgrecall.telemetry.families import counter, counting, gauge, timing

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from pgrecall.config import Settings
    from pgrecall.telemetry.operations import Operation

OTHER_PROJECTS = "other"
"""The label of projects beyond the number that get one of their own."""

Figures = Mapping[str, int]


class OpenMemories(Collector):
    """What the pools of all open memories do, summed up; read when Prometheus asks.

    Counts of memories that were closed, or forgotten, are kept, so that no sum ever falls. A fork
    begins anew.
    """

    _GAUGES = ("pool_size", "pool_available", "pool_max", "requests_waiting")

    def __init__(self) -> None:
        self._open: dict[weakref.WeakMethod[Callable[[], Figures]], Figures] = {}
        self._begin_anew()
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()  # the parent's may have been held when it forked
        self._open = {method: {} for method in self._open}
        self._gone: Sums[str] = Sums()

    def add(self, figures: Callable[[], Figures]) -> None:
        """Read a memory's figures from now on.

        Args:
            figures: A method of it, held weakly, that returns what ``get_stats()`` of a pool
                does, and ``metrics_lost``.
        """
        with self._lock:
            self._open[weakref.WeakMethod(figures)] = {}

    def remove(self, figures: Callable[[], Figures]) -> None:
        """Read a memory that is being closed for the last time."""
        with self._lock:
            if self._open.pop(weakref.WeakMethod(figures), None) is not None:
                self._bury(figures())

    def _bury(self, figures: Figures) -> None:
        self._gone.update({k: v for k, v in figures.items() if k not in self._GAUGES})

    def sums(self) -> Figures:
        """Return each figure, summed up over the memories of this process."""
        with self._lock:
            for method, last in [*self._open.items()]:
                figures = method()
                if figures is None:  # never closed, and gone
                    del self._open[method]
                    self._bury(last)
                else:
                    self._open[method] = figures()
            sums = self._gone.copy()
            for now in self._open.values():
                sums.update(now)
            return sums

    def describe(self) -> Iterator[Metric]:
        """Return the names, so that nothing is read when they are registered."""
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they stand."""
        return self._families(self.sums())

    def _families(self, sums: Figures) -> Iterator[Metric]:
        def value(name: str) -> int:
            return sums.get(name, 0)

        idle = value("pool_available")
        used = max(0, value("pool_size") - idle)
        yield gauge("pgrecall_pool_connections", [(("idle",), idle), (("used",), used)])
        for name, figure in (
            ("pgrecall_pool_connections_max", "pool_max"),
            ("pgrecall_pool_requests_waiting", "requests_waiting"),
        ):
            yield gauge(name, [((), value(figure))])
        for name, counted in (
            ("pgrecall_pool_requests_total", value("requests_num")),
            ("pgrecall_pool_requests_queued_total", value("requests_queued")),
            ("pgrecall_pool_request_errors_total", value("requests_errors")),
            ("pgrecall_pool_wait_seconds_total", value("requests_wait_ms") / 1000),
            ("pgrecall_metrics_lost_total", value("metrics_lost")),
        ):
            yield counter(name, [((), counted)])


class Projects:
    """Which projects get a label of their own: the first ones, up to a number."""

    def __init__(self) -> None:
        self.most = 0
        self._named: set[str] = set()
        self._lock = threading.Lock()

    def label(self, operation: Operation) -> str:
        """Return the label of an operation's project; ``""`` where there are to be none."""
        project_id = operation.project_id
        if not self.most or project_id is None:
            return ""
        if project_id in self._named:
            return project_id
        # One that was refused may be misspelt: it takes no place.
        if not operation.refused and len(self._named) < self.most:
            with self._lock:
                if len(self._named) < self.most:
                    self._named.add(project_id)
                    return project_id
        return OTHER_PROJECTS


class Instruments:
    """The instruments of one process.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.projects = Projects()
        self.memories = OpenMemories()
        self._duration = timing("pgrecall_operation_duration_seconds", registry)
        self._results = counting("pgrecall_operation_results_total", registry)
        self._failures = counting("pgrecall_operation_failures_total", registry)
        embedding = timing("pgrecall_embedding_duration_seconds", registry)
        registry.register(self.memories)
        self._embedding = {mode: embedding.labels(mode) for mode in ("query", "document")}
        # Finding a child by its labels costs more than observing it.
        self._children: dict[tuple[str, str], tuple[Histogram, Counter]] = {}

    def ended(self, operation: Operation) -> None:
        """Count an operation."""
        project = self.projects.label(operation)
        if operation.failure is not None:
            self._failures.labels(operation.name, operation.failure, project).inc()
            return
        key = (operation.name, project)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._duration.labels(*key),
                self._results.labels(*key),
            )
        children[0].observe(operation.seconds)
        if operation.results:
            children[1].inc(operation.results)

    def embedded(self, mode: str, seconds: float) -> None:
        """Count an embedding."""
        self._embedding["query" if mode == "query" else "document"].observe(seconds)


class _Process:
    """What a process has once, however many memories it opens."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.instruments: Instruments | None = None
        self.served: tuple[str, int] | None = None
        self.server: Any = None

    def let_go(self) -> None:
        """In a fork: leave the port to the parent, whose thread answers there."""
        self.lock = threading.Lock()
        self.served = None
        if self.server is not None:
            self.server.socket.close()
            self.server = None


_process = _Process()
os.register_at_fork(after_in_child=_process.let_go)


def expose(settings: Settings) -> Instruments:
    """Return the process's instruments, registered at the first call.

    Args:
        settings: ``prometheus_projects``; the largest number that a memory asked for counts.
            With ``prometheus_port`` they are also served there, by ``prometheus_client``.

    Raises:
        ConfigurationError: They cannot be served there.
    """
    with _process.lock:
        if _process.instruments is None:
            _process.instruments = Instruments()
        instruments = _process.instruments
        instruments.projects.most = max(instruments.projects.most, settings.prometheus_projects)
        if settings.prometheus_port is not None:
            _serve(settings.prometheus_host, settings.prometheus_port)
        return instruments


def _serve(host: str, port: int) -> None:
    if _process.served == (host, port):
        return
    if _process.served is not None:
        raise ConfigurationError(
            f"this process serves its metrics at {':'.join(map(str, _process.served))} already, "
            f"so not at {host}:{port}",
            hint="PGRECALL_PROMETHEUS_HOST and PGRECALL_PROMETHEUS_PORT hold for a whole process",
        )
    try:
        _process.server, _ = start_http_server(port, addr=host)
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served at {host}:{port}: {error.strerror or error}",
            hint="another process listens there; give each of them a PGRECALL_PROMETHEUS_PORT of "
            "its own"
            if error.errno == errno.EADDRINUSE
            else "correct PGRECALL_PROMETHEUS_HOST or PGRECALL_PROMETHEUS_PORT",
        ) from error
    _process.served = (host, port)
