"""Checks of the server's settings and state."""

from __future__ import annotations

from pgrecall.models import Staleness
from pgrecall.ops.checks import Seen, in_bytes
from pgrecall.ops.doctor.facts import Facts
from pgrecall.ops.sizing.plan import FULL, ROOMY

_BUSY = 0.8


def direct(facts: Facts) -> Seen:
    """No pooler stands between."""
    if facts.pooled:
        return Seen(
            "failed",
            "the connection goes through a pooler, so what is seen need not hold for the next "
            "connection",
            "give the server's own connection string: PGRECALL_DIRECT_DSN",
        )
    return Seen("passed", f"connected straight to the server as {facts.server.role}")


def recovery(facts: Facts) -> Seen:
    """The server accepts writes."""
    if facts.server.in_recovery:
        return Seen(
            "warning",
            "the server is a standby in recovery: it answers recalls and refuses every record; "
            + _behind(facts.staleness),
            "connect to the primary for writing, or promote this one: SELECT pg_promote()",
        )
    return Seen("passed", "the server is a primary")


def _behind(staleness: Staleness) -> str:
    age = "an unknown time" if staleness.seconds is None else f"{staleness.seconds:.0f} s"
    waiting = "" if staleness.bytes is None else f", {in_bytes(staleness.bytes)} to be replayed"
    receives = "receives" if staleness.receiving else "does not receive"
    return f"it {receives} from its primary and is {age} behind{waiting}"


def checksums(facts: Facts) -> Seen:
    """Damaged pages are noticed."""
    if not facts.server.checksums:
        return Seen(
            "warning",
            "data_checksums = off: damage to the files stays unnoticed",
            "with the server stopped: pg_checksums --enable -D DATA_DIRECTORY",
        )
    return Seen("passed", "data_checksums = on")


def durability(facts: Facts) -> Seen:
    """What was committed survives a crash."""
    off = [
        name
        for name, on in (
            ("fsync", facts.server.fsync),
            ("full_page_writes", facts.server.full_page_writes),
        )
        if not on
    ]
    if off:
        return Seen(
            "failed",
            f"{' and '.join(f'{name} = off' for name in off)}: a crash can destroy the database",
            "; ".join(f"ALTER SYSTEM SET {name} = on" for name in off)
            + "; SELECT pg_reload_conf()",
        )
    if facts.server.synchronous_commit == "off":
        return Seen(
            "warning",
            "synchronous_commit = off: a crash can lose what was recorded just before",
            f'ALTER DATABASE "{facts.server.database}" SET synchronous_commit = on',
        )
    return Seen(
        "passed",
        f"fsync and full_page_writes on, synchronous_commit = {facts.server.synchronous_commit}",
    )


def shared_memory(facts: Facts) -> Seen:
    """A parallel build of a vector index fits the shared memory."""
    server, free = facts.server, facts.shared_memory_free
    needed = server.maintenance_work_mem
    settings = (
        f"maintenance_work_mem = {in_bytes(needed)}, max_parallel_maintenance_workers = "
        f"{server.maintenance_workers}"
    )
    if server.maintenance_workers == 0:
        return Seen("passed", f"{settings}: index builds need no shared memory")
    if server.shared_memory_type != "posix":
        return Seen("passed", f"{settings}: segments are of type {server.shared_memory_type}")
    if free is None:
        return Seen(
            "not configured",
            f"{settings}; the server runs elsewhere, so its /dev/shm cannot be seen from here",
            f"see on the server that /dev/shm has {in_bytes(needed)} free: df -h /dev/shm",
        )
    if free < needed:
        return Seen(
            "warning",
            f"{settings}, but only {in_bytes(free)} are free in /dev/shm: a parallel build of a "
            "vector index, or a restore, would fail",
            "SET max_parallel_maintenance_workers = 0 for builds and restores, lower "
            f"maintenance_work_mem, or enlarge /dev/shm to more than {in_bytes(needed)}",
        )
    return Seen("passed", f"{settings}, {in_bytes(free)} free in /dev/shm")


def buffers(facts: Facts) -> Seen:
    """The vector indexes fit into the server's cache."""
    size = sum(index.bytes for index in facts.indexes if index.method == "hnsw")
    evidence = (
        f"shared_buffers = {in_bytes(facts.server.shared_buffers)}, vector indexes {in_bytes(size)}"
    )
    if size > facts.server.shared_buffers:
        return Seen(
            "warning",
            f"{evidence}: recalls will read from disk",
            "ALTER SYSTEM SET shared_buffers to a quarter of the machine's memory, and restart",
        )
    return Seen("passed", evidence)


def memory(facts: Facts) -> Seen:
    """What recalls read stays in the machine's memory: vector indexes, codes, words."""
    touched = sum(
        index.bytes
        for index in facts.indexes
        if index.method == "hnsw" or index.name.startswith("pgrecall.")
    )
    if facts.machine_memory is None:
        return Seen(
            "not configured",
            f"recalls read {in_bytes(touched)}; the server's machine cannot be seen from here",
            "pgrecall doctor --sizing --memory GIB",
        )
    share = touched / facts.machine_memory
    evidence = (
        f"recalls read {in_bytes(touched)}, {share:.0%} of the machine's "
        f"{in_bytes(facts.machine_memory)}"
    )
    remedy = (
        "`pgrecall doctor --sizing` tells what fits; `pgrecall embeddings switch --storage "
        "halfvec` halves vectors and their index"
    )
    if share > FULL:
        return Seen("failed", f"{evidence}: it leaves memory, and recalls wait for disk", remedy)
    if share > ROOMY:
        return Seen("warning", f"{evidence}: at {FULL:.0%} it leaves memory", remedy)
    return Seen("passed", evidence)


def page_cost(facts: Facts) -> Seen:
    """Costs of random reads suit the disks; only a note, since the disks cannot be seen."""
    cost = facts.server.random_page_cost
    if cost >= 4:
        return Seen(
            "passed",
            f"note: random_page_cost = {cost:g} suits spinning disks and can make the planner "
            "avoid vector indexes",
            f'on SSDs: ALTER DATABASE "{facts.server.database}" SET random_page_cost = 1.1',
        )
    return Seen("passed", f"random_page_cost = {cost:g}")


def connections(facts: Facts) -> Seen:
    """There is room for clients."""
    used, most = facts.server.connections_used, facts.server.connections
    evidence = f"{used} of {most} connections in use, a client opens up to {facts.pool_size}"
    if facts.pool_size > most or used > most * _BUSY:
        return Seen(
            "warning",
            evidence,
            "put a pooler in front, lower PGRECALL_POOL_MAX_SIZE, or "
            "ALTER SYSTEM SET max_connections and restart",
        )
    return Seen("passed", evidence)
