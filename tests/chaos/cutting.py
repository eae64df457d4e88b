"""Connections cut at every message of every conversation that a client has with its server.

Each conversation is listened to once; then it is held again and again, and broken off at each of
its messages in turn: before, amid and after it, by a reset and by an orderly end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import psycopg
from tests.chaos.ledger import Fate, Ledger, Tally, Updated, Write
from tests.chaos.load import episode
from tests.chaos.place import Place, wait_for
from tests.chaos.proxy import Cut, How, Proxy, Where, proxied

from pgrecall import Memory, errors

WHERES: tuple[Where, ...] = ("before", "amid", "after")
HOWS: tuple[How, ...] = ("rst", "fin")
ANSWER = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """What a conversation needs: a client behind the proxy that is never reopened."""

    memory: Memory
    proxy: Proxy
    ledger: Ledger
    updated: Updated


def record(held: Held) -> bool:
    with held.ledger.entry("record") as write:
        held.memory.episodes.record(**episode(write, write.numbers[0]))
    return write.fate is Fate.ACKNOWLEDGED


def record_keyed(held: Held) -> bool:
    """With its external_id repeated until it is known."""
    with held.ledger.entry("record keyed") as write:
        _keyed(held, write)
    told = write.error
    while write.fate is Fate.UNKNOWN:
        with held.ledger.attempt(write):
            _keyed(held, write)
    write.error = told
    return told is None


def _keyed(held: Held, write: Write) -> None:
    held.memory.episodes.record(**episode(write, write.numbers[0], keyed=True))


def record_many(held: Held) -> bool:
    with held.ledger.entry("record_many", 3) as write:
        held.memory.episodes.record_many([episode(write, n) for n in write.numbers])
    return write.fate is Fate.ACKNOWLEDGED


def record_outcome(held: Held) -> bool:
    number, fate = held.ledger.number(), Fate.UNKNOWN
    try:
        held.memory.episodes.record_outcome(held.updated.episode_id, {"number": number}, 1.0)
        fate = Fate.ACKNOWLEDGED
    except errors.OutcomeUnknown:
        fate = Fate.UNKNOWN
    except errors.Unavailable:
        fate = Fate.REFUSED
    held.ledger.update(held.updated, fate, number)
    return fate is Fate.ACKNOWLEDGED


def transaction(held: Held) -> bool:
    """A connection of the caller's, with which two episodes commit."""
    with held.ledger.entry("caller's transaction", 2) as write:
        try:
            connection = psycopg.connect(held.proxy.dsn, connect_timeout=5)
        except psycopg.Error as error:
            raise errors.Unavailable(str(error)) from error
        try:
            for number in write.numbers:
                values = {**episode(write, number), "embed": "later"}
                held.memory.episodes.record(**values, connection=connection)
            connection.commit()
        except psycopg.Error as error:
            raise errors.OutcomeUnknown(str(error)) from error
        finally:
            connection.close()
    return write.fate is Fate.ACKNOWLEDGED


def recall(held: Held) -> bool:
    return _reading(lambda: held.memory.episodes.recall("done", limit=5))


def get(held: Held) -> bool:
    return _reading(lambda: held.memory.episodes.get(held.updated.episode_id))


def _reading(call: Callable[[], object]) -> bool:
    try:
        call()
    except errors.Unavailable:  # and ConnectionLost
        return False
    return True


def record_prepared(held: Held) -> bool:
    """Once the statement stands prepared in the server, the conversation is a shorter one."""
    return record(held)


CONVERSATIONS: dict[str, Callable[[Held], bool]] = {
    "record": record,
    "record, prepared": record_prepared,
    "record, repeated by external_id": record_keyed,
    "record_many": record_many,
    "record_outcome": record_outcome,
    "caller's transaction": transaction,
    "recall": recall,
    "get": get,
}


@contextmanager
def _holding(place: Place, ledger: Ledger, **settings: Any) -> Iterator[Held]:
    with proxied(place.dsn) as proxy:
        own = {"metrics": False, "pool_max_size": 1, "connect_timeout": 5.0, **settings}
        with place.memory(proxy.dsn, **own) as memory:
            followed = memory.episodes.record(
                project_id="chaos", agent_version="1", perception={"followed": True},
                reasoning={}, action={"done": True},
            )  # fmt: skip
            updated = Updated(followed.episode_id)
            ledger.follow(updated)
            yield Held(memory, proxy, ledger, updated)


def _plan(stages: int, *, thorough: bool) -> Iterator[Cut]:
    """Every cut; or each stage twice, the ways taking turns."""
    if thorough:
        yield from (Cut(n, where, how) for n in range(stages) for where in WHERES for how in HOWS)
        return
    ways = cycle((where, how) for where in WHERES for how in HOWS)
    for nth in range(stages):
        for _ in range(2):
            where, how = next(ways)
            yield Cut(nth, where, how)


def cut_everywhere(place: Place, rounds: int, *, names: Sequence[str] = ()) -> Tally:
    """Cut every conversation at every message; with more rounds in every way there is."""
    place.empty()
    ledger = Ledger("connection cut at every message")
    stages = 0
    with _holding(place, ledger) as held:
        for name in names or CONVERSATIONS:
            converse = CONVERSATIONS[name]
            length = _listen(held, converse)
            stages += length
            for cut in _plan(length, thorough=rounds > 1):
                _cut(held, name, converse, cut)
    tally = ledger.judge(place.admin_dsn)
    tally.note = f"{stages} messages of {len(names or CONVERSATIONS)} conversations"
    return tally


def _listen(held: Held, converse: Callable[[Held], bool]) -> int:
    """Return how many messages a conversation has, on a connection that is new to it."""
    # As it is when a cut has been made: on a new connection, where it was held once.
    held.proxy.arm(Cut(0))
    converse(held)
    _recover(held, converse)
    held.proxy.arm(None)
    if not converse(held):
        held.ledger.complain("a conversation fails that nobody disturbs")
    return len(held.proxy.seen)


def _recover(held: Held, converse: Callable[[Held], bool], *, late: bool = False) -> None:
    """See that the client comes back by itself, with the next call.

    A cut after the last message is ``late``: the call was over, so the next may be the one it hits.
    """
    held.proxy.arm(None)
    if late:
        converse(held)
    for _ in range(4 if converse is record_prepared else 1):
        if not converse(held):
            name = getattr(converse, "__name__", "?")
            held.ledger.complain(f"{name}: the client does not recover by itself")
    wait_for(lambda: _idle(held.memory), "the pool to have its connection back")


def _idle(memory: Memory) -> bool:
    stats = memory._database.pool_stats()
    return stats["pool_available"] == stats["pool_size"] == 1


def _cut(held: Held, name: str, converse: Callable[[Held], bool], cut: Cut) -> None:
    held.proxy.arm(cut)
    fine = converse(held)
    if held.proxy.fired.is_set():
        held.ledger.fault()
    else:
        held.ledger.complain(f"{name}: {cut} was not reached; it went {held.proxy.seen}")
    if fine and cut.how == "stall":
        held.ledger.complain(f"{name}: {cut} was not noticed")
    _recover(held, converse, late=fine)


def stall_everywhere(place: Place, rounds: int) -> Tally:
    """Nothing is closed, but nothing arrives any more: the client's patience ends the call."""
    place.empty()
    ledger = Ledger("connection stalled")
    names = tuple(CONVERSATIONS) if rounds > 1 else ("record", "recall")
    names = tuple(name for name in names if name != "caller's transaction")  # its own time-outs
    with _holding(place, ledger, answer_timeout=ANSWER) as held:
        for name in names:
            converse = CONVERSATIONS[name]
            length = _listen(held, converse)
            for nth in range(length) if rounds > 1 else (2, length - 2):
                _cut(held, name, converse, Cut(nth, "before", "stall"))
    tally = ledger.judge(place.admin_dsn)
    if tally.longest_call_seconds > ANSWER * 8:
        tally.wrong.append(f"a stalled call took {tally.longest_call_seconds:.1f} s")
    return tally


def cut_opening(place: Place, rounds: int) -> Tally:
    """The opening of a client is cut at every message: it succeeds, or says so clearly."""
    ledger = Ledger("opening cut at every message")

    def opens(proxy: Proxy) -> bool:
        try:
            place.memory(proxy.dsn, metrics=False, pool_max_size=1).close()
        except errors.Unavailable:
            return False
        except errors.PgrecallError as error:
            ledger.complain(f"opening: {type(error).__name__}: {error}")
            return False
        return True

    with proxied(place.dsn) as proxy:
        proxy.arm(None)
        opens(proxy)
        stages = len(proxy.seen)
        # A cut of the pool's own connection costs a second, after which it tries again.
        plan = [*_plan(stages, thorough=rounds > 1)][:: 1 if rounds > 1 else 7]
        for cut in plan:
            proxy.arm(cut)
            opens(proxy)
            if proxy.fired.is_set():
                ledger.fault()
        proxy.arm(None)
        if not opens(proxy):
            ledger.complain("opening fails that nobody disturbs")
    ledger.tally.note = f"{stages} messages"
    return ledger.tally


def quiet() -> None:
    """Leave out what is said of each connection that breaks, and of each metric: it is the plan."""
    for name in ("psycopg", "psycopg.pool", "pgrecall"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
