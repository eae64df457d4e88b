"""The one error tree of pgrecall.

Every error says what was wrong, with which value, and (in ``hint``) what to do::

    PgrecallError
    ├── InvalidInput            a value given by the caller; nothing was changed
    │   └── InvalidVector       wrong dimension, NaN, infinite or all-zero
    │       └── ModelChanged    of a model that the database has left; nothing was changed
    ├── NotFound                an id that no row has
    ├── Conflict                an external_id that already holds other content
    ├── ConfigurationError      a setting is missing or wrong
    │   ├── RevisionMismatch    the embedder's weights are not those of the database's vectors
    │   └── MissingExtra        an optional part is not installed
    ├── EmbeddingError          the embedder could not turn text into a vector
    │   ├── EmbedderUnavailable down, slow or refusing for now; the same call may succeed later
    │   └── EmbeddingRefused    this text gets no vector, however often it is tried
    ├── EngineError             the embedded server could not be started, found or stopped
    ├── OperationRefused        an operator's command was refused before changing anything
    ├── MigrationError          a migration could not be completed
    ├── TransferError           an import or export stopped; running it again continues
    ├── BackupError             a backup could not be made, read or restored
    │   └── BackupDamaged       what is stored is not what was backed up
    ├── SchemaMismatch          the database schema does not fit this client
    │   ├── SchemaMissing       nothing has been provisioned there
    │   ├── SchemaTooOld        migrate the database
    │   └── SchemaTooNew        upgrade the client
    └── DatabaseError           PostgreSQL or the way to it failed
        ├── Unavailable         no connection could be had; nothing was written
        │   └── ConnectionLost  the connection broke before a commit; nothing was written
        ├── OutcomeUnknown      the connection broke during a commit; it may or may not be written
        ├── ReadOnlyServer      a standby or read-only server refuses writes
        ├── OutOfSpace          disk or memory of the server is full
        ├── PermissionDenied    the role lacks a right
        └── TimedOut            a statement or lock time-out expired
"""

from __future__ import annotations


class PgrecallError(Exception):
    """Base of every error raised by pgrecall.

    Args:
        message: What was wrong, with the value concerned.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(PgrecallError, ValueError):
    """A value given by the caller cannot be accepted; nothing was changed."""


class InvalidVector(InvalidInput):
    """An embedding has the wrong dimension or a value that has no direction."""


class ModelChanged(InvalidVector):
    """A vector is of a model that does not serve in the database any more; nothing was changed."""


class NotFound(PgrecallError, LookupError):
    """No row has the given identifier."""


class Conflict(PgrecallError):
    """The same ``external_id`` already stands for other content; nothing was changed."""


class ConfigurationError(PgrecallError):
    """A setting is missing, malformed or contradicts another."""


class RevisionMismatch(ConfigurationError):
    """The embedder has other weights by now than those that made the database's vectors."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional part of pgrecall is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the optional part {extra!r}, which is not installed",
            hint=f"install it with: pip install 'pgrecall[{extra}]'",
        )
        self.extra = extra


class EmbeddingError(PgrecallError):
    """The embedder could not produce a usable vector."""


class EmbedderUnavailable(EmbeddingError):
    """The embedder is down, slow or refuses for now; the same call may succeed later."""


class EmbeddingRefused(EmbeddingError):
    """The embedder gives a text no vector, and would not if it were tried again.

    Attributes:
        index: Place of the text among those given, from 0; None where it is not known which.
    """

    def __init__(self, message: str, *, hint: str | None = None, index: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.index = index


class EngineError(PgrecallError):
    """The embedded PostgreSQL server could not be found, started or stopped."""


class OperationRefused(PgrecallError):
    """An operator's command was refused before it changed anything."""


class MigrationError(PgrecallError):
    """A migration stopped; what it had begun was rolled back or is resumed by the next run."""


class TransferError(PgrecallError):
    """An import or export stopped: its file or the database failed; it can be run again."""


class BackupError(PgrecallError):
    """A backup could not be made, read or restored; what stood before is untouched."""


class BackupDamaged(BackupError):
    """A stored backup is not what was backed up: bytes, files or rows differ."""


class SchemaMismatch(PgrecallError):
    """The database schema does not fit this version of the client."""


class SchemaMissing(SchemaMismatch):
    """The database holds no agent memory."""


class SchemaTooOld(SchemaMismatch):
    """The database was provisioned by an older version; migrate it."""


class SchemaTooNew(SchemaMismatch):
    """The database was migrated by a newer version; upgrade the client."""


class DatabaseError(PgrecallError):
    """PostgreSQL, or the way to it, failed.

    Attributes:
        sqlstate: The five-character SQLSTATE, or None when the server sent none.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, sqlstate: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


class Unavailable(DatabaseError):
    """No connection could be had, so nothing was written."""


class ConnectionLost(Unavailable):
    """The connection broke before the commit was sent, so nothing was written."""


class OutcomeUnknown(DatabaseError):
    """The connection broke during a commit: the write may or may not have happened."""


class ReadOnlyServer(DatabaseError):
    """The server accepts no writes now (a standby, or read-only)."""


class OutOfSpace(DatabaseError):
    """The server ran out of disk or memory; nothing was written."""


class PermissionDenied(DatabaseError):
    """The role that is connected lacks a right."""


class TimedOut(DatabaseError):
    """A statement or lock time-out expired; nothing was written."""
