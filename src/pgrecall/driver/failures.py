"""Driver errors in terms of our own tree; each is wrapped once, with the original as its cause."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from pgrecall.errors import (
    ConfigurationError,
    Conflict,
    ConnectionLost,
    DatabaseError,
    InvalidInput,
    ModelChanged,
    OutcomeUnknown,
    OutOfSpace,
    PermissionDenied,
    PgrecallError,
    ReadOnlyServer,
    SchemaMissing,
    TimedOut,
    Unavailable,
)

_SHUTTING_DOWN = ("57P01", "57P02", "57P05", "25P03")
_NOT_READY = ("57P03", "53300")
# What `pgrecall.check_model` raises, and what pgvector says of vectors that are not as long. The
# client checks lengths itself, so they can only differ because the column's has changed.
_OTHER_MODEL = "PR001"
_OTHER_LENGTH = re.compile(
    r"^(different (half)?(vec|vector) dimensions|expected) \d+ (and|dimensions, not) \d+"
)
# What PgBouncer answers in place of a server, before a statement has reached any.
_POOLER_HAD_NO_SERVER = ("query_wait_timeout", "server login has been failing")
_POOLER_REFUSALS = {
    "unsupported startup parameter": "a pooler takes no options of a connection; attach the "
    "setting to the role: ALTER ROLE ... IN DATABASE ... SET ...",
    "no such user": "the pooler does not know this role; `pgrecall pooler config` writes a "
    "configuration that asks the server",
    "no such database": "the pooler does not know this database; name it with "
    "`pgrecall pooler config --also`",
}
_CONSTRAINTS = {
    "chk_control_mode": "control_mode must be one of 'rule_based_only', 'intelligence_enhanced', "
    "'memory_augmented'",
    "chk_knowledge_type": "knowledge_type must be one of 'strategy', 'pattern', 'constraint', "
    "'heuristic'",
    "chk_min_supporting_episodes": "active knowledge needs at least three supporting episodes",
    "agent_episodes_outcome_quality_check": "outcome_quality must lie between 0 and 1",
    "agent_knowledge_confidence_check": "confidence must lie between 0 and 1",
}


def translate(error: Exception, *, writing: bool = False, sent: bool = True) -> PgrecallError:
    """Return our error for a driver error.

    Args:
        error: What psycopg or its pool raised.
        writing: Whether the statement could have changed something.
        sent: Whether the statement, or its commit, had been sent; if the connection then broke
            while writing, nobody can know whether the server carried it out.
    """
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests):
        return Unavailable(
            f"no connection could be had: {error}",
            hint="check that the server runs and that pool_max_size suits the load",
        )
    if not isinstance(error, psycopg.Error):
        raise TypeError(f"not a driver error: {error!r}") from error
    state = error.sqlstate
    text = _first_line(error)
    if _connection_broke(error):
        reached = not text.startswith(_POOLER_HAD_NO_SERVER)
        return _broken(text, state, unknown=writing and sent and reached)
    if state is not None and (found := _by_state(error, state, text)) is not None:
        return found
    return DatabaseError(f"PostgreSQL refused the statement: {text}", sqlstate=state)


def translate_connect(error: psycopg.Error) -> PgrecallError:
    """Return our error for a connection that could not be opened.

    Args:
        error: What psycopg raised. Raise ours ``from None`` if the string itself was wrong, since
            the driver may quote it, password included.
    """
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return ConfigurationError(
            "the connection string cannot be read",
            hint="give a URL (postgresql://user@host/database) or key=value pairs",
        )
    text = str(error).strip()
    refusals = (hint for said, hint in _POOLER_REFUSALS.items() if f"FATAL:  {said}" in text)
    return Unavailable(
        f"the server could not be reached: {text}",
        hint=next(
            refusals,
            "check the connection string, that the server runs, and that it lets this role in",
        ),
        sqlstate=error.sqlstate,
    )


def _first_line(error: psycopg.Error) -> str:
    diagnosis = error.diag
    primary = diagnosis.message_primary or str(error).strip().split("\n")[0]
    return f"{primary}: {diagnosis.message_detail}" if diagnosis.message_detail else primary


def _connection_broke(error: psycopg.Error) -> bool:
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith("08") or state in _SHUTTING_DOWN


def _broken(text: str, state: str | None, *, unknown: bool) -> DatabaseError:
    if unknown:
        return OutcomeUnknown(
            f"the connection broke while a write was under way: {text}",
            hint="the write may or may not have happened; repeat it with the same external_id, "
            "or look before repeating",
            sqlstate=state,
        )
    return ConnectionLost(
        f"the connection broke: {text}",
        hint="nothing was written; check that the server runs, and repeat the call",
        sqlstate=state,
    )


def _by_state(error: psycopg.Error, state: str, text: str) -> PgrecallError | None:
    if isinstance(error, pg.CheckViolation | pg.NotNullViolation):
        return _constraint(error, text)
    if state == _OTHER_MODEL or _OTHER_LENGTH.search(text):
        return ModelChanged(
            f"the database's embedding model has changed: {text}",
            hint="make the vector anew, with the model that `pgrecall embeddings status` names",
        )
    if isinstance(error, pg.UniqueViolation):
        return Conflict(f"the row exists already: {text}", hint="nothing was changed")
    if isinstance(error, pg.DataError | pg.ProgramLimitExceeded):
        return InvalidInput(f"PostgreSQL refused a value: {text}", hint="nothing was changed")
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return ReadOnlyServer(
            f"the server accepts no writes: {text}",
            hint="it is a standby in recovery or set read-only; connect to the primary",
            sqlstate=state,
        )
    if isinstance(error, pg.InsufficientPrivilege):
        return PermissionDenied(
            f"the role lacks a right: {text}",
            hint="connect as another role, or run `pgrecall init` again to restore the grants",
            sqlstate=state,
        )
    if state in ("53000", "53100", "53200"):
        return OutOfSpace(
            f"the server ran out of space: {text}",
            hint="nothing was written; free disk or memory on the server and repeat the call",
            sqlstate=state,
        )
    if state in _NOT_READY:
        return Unavailable(
            f"the server takes no connection now: {text}", hint="try again later", sqlstate=state
        )
    if isinstance(error, pg.QueryCanceled | pg.LockNotAvailable):
        return TimedOut(f"a time-out expired: {text}", hint="nothing was written", sqlstate=state)
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.InvalidSchemaName):
        return SchemaMissing(
            f"the database lacks a part of the agent memory: {text}",
            hint="run `pgrecall migrate`, or `pgrecall verify` to see what is missing",
        )
    if isinstance(error, pg.SerializationFailure | pg.DeadlockDetected):
        return DatabaseError(
            f"another transaction was in the way: {text}",
            hint="nothing was written; repeat the call",
            sqlstate=state,
        )
    return None


def _constraint(error: psycopg.Error, text: str) -> InvalidInput:
    rule = _CONSTRAINTS.get(error.diag.constraint_name or "")
    return InvalidInput(
        f"{rule}: {text}" if rule else f"a rule of the database is violated: {text}",
        hint="nothing was changed",
    )
