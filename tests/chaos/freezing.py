"""A frozen server: stopped with SIGSTOP, so that it neither answers nor closes a connection.

No time-out of the server expires there, and its kernel goes on acknowledging what is sent: only
the client's own patience (``PGRECALL_ANSWER_TIMEOUT``) ends a call.
"""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import psycopg
from tests.chaos.killing import BACKENDS
from tests.chaos.ledger import Ledger, Tally
from tests.chaos.load import KEYED, KINDS, SINGLE, episode, under_load
from tests.chaos.place import PATIENCE, Place

from pgrecall import Memory, errors

ANSWER, CONNECT, SLACK = 1.0, 2.0, 4.0


def freeze_briefly(place: Place, rounds: int) -> Tally:
    """Frozen for less than the clients' patience: their calls are late, and nothing fails."""
    place.empty()
    ledger = Ledger("SIGSTOP of the server, shorter than the time-out")
    with under_load(place, ledger, connect_timeout=30.0):
        for _ in range(rounds):
            with place.frozen():
                ledger.fault()
                time.sleep(1.0)
            ledger.await_progress(KINDS, seconds=PATIENCE)
    tally = ledger.judge(place.admin_dsn)
    if tally.errors:
        tally.wrong.append(f"calls failed that were only late: {dict(tally.errors)}")
    return tally


def freeze_long(place: Place, rounds: int) -> Tally:
    """Frozen for longer: every call ends in time with an error of the right kind."""
    place.empty()
    ledger = Ledger("SIGSTOP of the server, longer than the time-out")
    with place.memory(
        metrics=False, pool_max_size=2, answer_timeout=ANSWER, connect_timeout=CONNECT
    ) as memory:
        for _ in range(rounds):
            _record(ledger, memory, SINGLE)
            with place.frozen():
                ledger.fault()
                # The first two find connections that stood, the others none.
                for kind in (SINGLE, KEYED, SINGLE):
                    _record(ledger, memory, kind)
                _read(ledger, memory)
            started = time.monotonic()
            while not _record(ledger, memory, SINGLE):
                if time.monotonic() - started > PATIENCE:
                    ledger.complain("the client does not recover")
                    break
            ledger.tally.recovery_seconds.append(time.monotonic() - started)
    tally = ledger.judge(place.admin_dsn)
    limit = ANSWER + CONNECT + SLACK
    if tally.longest_call_seconds > limit:
        tally.wrong.append(f"a call took {tally.longest_call_seconds:.1f} s, not {limit:.0f}")
    if not tally.unknown:
        tally.wrong.append("no call was under way when the server was frozen")
    return tally


def _record(ledger: Ledger, memory: Memory, kind: str) -> bool:
    with ledger.entry(kind) as write:
        memory.episodes.record(**episode(write, write.numbers[0], keyed=kind == KEYED))
    return write.error is None


def _read(ledger: Ledger, memory: Memory) -> None:
    try:
        memory.episodes.recall("done")
    except errors.Unavailable:
        return
    ledger.complain("a frozen server answered")


def freeze_backend(place: Place, rounds: int) -> Tally:
    """One process of the server is frozen amid its work; the clients of the others go on."""
    place.empty()
    ledger = Ledger("SIGSTOP of one backend")
    with (
        under_load(place, ledger, answer_timeout=ANSWER),
        psycopg.connect(place.admin_dsn, autocommit=True) as admin,
    ):
        for _ in range(rounds):
            row = admin.execute(BACKENDS).fetchone()
            assert row is not None
            with suppress(psutil.NoSuchProcess), place.frozen([psutil.Process(row[0])]):
                ledger.fault()
                time.sleep(ANSWER * 2)
            ledger.await_progress(KINDS, seconds=PATIENCE)
    return ledger.judge(place.admin_dsn)


def freeze_while_opening(place: Place, rounds: int) -> Tally:
    """A client that is opened meanwhile is told in time, and so is an operator's command."""
    ledger = Ledger("opening a frozen server")
    for _ in range(rounds):
        with place.frozen():
            ledger.fault()
            started = time.monotonic()
            try:
                place.memory(connect_timeout=CONNECT).close()
                ledger.complain("a frozen server let somebody in")
            except errors.Unavailable:
                taken = time.monotonic() - started
            if taken > CONNECT + SLACK:
                ledger.complain(f"opening took {taken:.1f} s")
    return ledger.tally
