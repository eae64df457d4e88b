"""``init``: the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence

from pgrecall.config import Settings
from pgrecall.migrations import HEAD, REVISIONS
from pgrecall.ops.provision import adopt, credentials, database, roles
from pgrecall.ops.provision.checks import Facts, Request, as_request, examine, look_at_server
from pgrecall.ops.provision.credentials import ROLES, service_name
from pgrecall.ops.provision.report import InitReport, Journal, Progress
from pgrecall.ops.provision.session import Session, connect, take_lock

Services = dict[str, dict[str, str]]


def init(
    admin_dsn: str,
    *,
    database: str = "agent_memory",
    dimensions: int | None = None,
    grant_to: Sequence[str] = (),
    locale: str | None = None,
    dry_run: bool = False,
    settings: Settings,
    reset_passwords: bool = False,
    progress: Progress | None = None,
) -> InitReport:
    """Provision ``database``, or bring an existing one up to date, or adopt one made by hand.

    Args:
        admin_dsn: Connection string of an administrator, to the server itself; never stored.
        database: Name of the database.
        dimensions: Dimensions of the embeddings; None takes those of an existing database, or
            1536.
        grant_to: Roles that become members of the owner and get the specification's grants.
        locale: Locale of a new database; None takes en_US.UTF-8 where the server has it,
            otherwise the builtin C.UTF-8.
        dry_run: Only report what would be done.
        settings: Where the service and password files go.
        reset_passwords: Give all five roles new passwords.
        progress: Called with a line for each step.

    Raises:
        InvalidInput: The name or the dimensions cannot be.
        OperationRefused: Something stands against it; nothing was changed.
        PermissionDenied: The administrator lacks a right that only showed on the way.
        MigrationError: A revision failed; the next run goes on from there.
        Unavailable: The server could not be reached, or the connection was lost.
    """
    request = as_request(
        admin_dsn,
        database=database,
        dimensions=dimensions,
        grant_to=grant_to,
        locale=locale,
        reset_passwords=reset_passwords,
    )
    journal = Journal(dry_run=dry_run, progress=progress)
    with connect(admin_dsn) as admin:
        server = look_at_server(admin)
        if not dry_run:
            take_lock(admin, request.database)
        facts = examine(admin, server, request)
        services = _services(admin, request)
        _provide_roles(admin, facts, request, services, settings, journal)
        _provide_database(admin, facts, request, journal)
        _write_services(services, settings, journal)
    return _report(request, facts, tuple(services), journal)


def _report(
    request: Request, facts: Facts, services: tuple[str, ...], journal: Journal
) -> InitReport:
    before = facts.schema.revision if facts.schema is not None else None
    return InitReport(
        database=request.database,
        dimensions=facts.dimensions,
        revision=before if journal.dry_run else HEAD,
        steps=tuple(journal.steps),
        reduced=tuple(journal.reduced),
        notes=tuple(journal.notes),
        services=services,
        adopted=facts.schema is not None and facts.schema.made_by_hand,
        dry_run=journal.dry_run,
    )


def _services(admin: Session, request: Request) -> Services:
    """Return the service entry of each role: the administrator's way, the role's own name."""
    carried = credentials.carried_parameters(request.admin_dsn, admin.connection)
    return {
        service_name(purpose): {
            **carried,
            "dbname": request.database,
            "user": request.role(purpose),
        }
        for purpose in ROLES
    }


def _provide_roles(
    admin: Session,
    facts: Facts,
    request: Request,
    services: Services,
    settings: Settings,
    journal: Journal,
) -> None:
    file = settings.password_file
    entries = {purpose: services[service_name(purpose)] for purpose in ROLES}
    known = {}
    for purpose, service in entries.items():
        password = credentials.find_password(file, service)
        if password is not None:
            known[purpose] = password
    passwords = roles.choose_passwords(facts, request, known)
    # Written before the roles get them: a password that nobody knows would be worse than one that
    # isn't in use yet.
    fresh = {name: word for name, word in passwords.items() if known.get(name) != word}
    if fresh:
        journal.change(
            "passwords",
            str(file),
            lambda: credentials.write_passwords(
                file, [(entries[purpose], password) for purpose, password in fresh.items()]
            ),
            "for " + ", ".join(request.role(purpose) for purpose in fresh),
        )
    else:
        journal.unchanged("passwords", str(file))
    if request.reset_passwords and request.role("monitor") in facts.roles:
        journal.notes.append(
            "a PgBouncer in front of it holds the old verifier of the monitor in its userlist.txt; "
            "run pgrecall pooler config again for it"
        )
    unknown = [request.role(name) for name in ROLES if name not in {*known, *passwords}]
    if unknown:
        journal.notes.append(
            f"the passwords of existing roles aren't in {file}: {', '.join(unknown)}; add them "
            "there, or run init with --reset-passwords"
        )
    roles.create_roles(admin, facts, request, passwords, journal)
    roles.join_owner(admin, facts, request, journal)
    roles.join_predefined(admin, facts, request, journal)


def _provide_database(admin: Session, facts: Facts, request: Request, journal: Journal) -> None:
    owner = request.role("owner")
    database.create_database(admin, facts, request, journal)
    if facts.database is None and journal.dry_run:
        database.foretell(facts, request, journal)
        return
    with connect(request.admin_dsn, request.database) as session:
        session.run("lock_timeout")
        database.close_to_public(session, facts, request, journal)
        database.create_extensions(session, facts, journal)
        database.widen_search_path(session, request, journal)
        adopt.take_ownership(session, owner, journal)
        database.create_schema(session, owner, journal)
        _migrate(session, facts, request, journal)
        roles.apply_grants(session, request, journal)
        roles.apply_settings(session, request, journal)


def _migrate(session: Session, facts: Facts, request: Request, journal: Journal) -> None:
    owner, schema = request.role("owner"), facts.schema
    dsn = database.dsn_of(request)
    revision = schema.revision if schema is not None else None
    if schema is not None and schema.made_by_hand:
        revision = REVISIONS[0]
        journal.create(
            "revision",
            revision,
            lambda: _adopt(dsn, facts.dimensions, owner),
            "a schema made by hand is taken over",
        )
    done = 0 if revision is None else REVISIONS.index(revision) + 1
    for pending in REVISIONS[done:]:
        journal.create(
            "revision",
            pending,
            lambda target=pending: _upgrade(  # type: ignore[misc]
                dsn, facts.dimensions, owner, target
            ),
            f"{facts.dimensions} dimensions" if pending == REVISIONS[0] else "",
        )
    if done == len(REVISIONS):
        journal.unchanged("revision", HEAD)
    if schema is not None and schema.has_any:
        adopt.correct_evidence(session, owner, facts.dimensions, journal)
        adopt.note_vector_indexes(session, journal)


def _adopt(dsn: str, dimensions: int, owner: str) -> None:
    from pgrecall.migrations import runner  # Alembic takes a third of a second to load

    runner.adopt(dsn, dimensions=dimensions, role=owner)


def _upgrade(dsn: str, dimensions: int, owner: str, target: str) -> None:
    from pgrecall.migrations import runner  # as above

    runner.upgrade(dsn, dimensions=dimensions, target=target, role=owner)


def _write_services(services: Services, settings: Settings, journal: Journal) -> None:
    file = settings.service_file
    present = credentials.read_services(file)
    # The password file is named in each, so that psql finds it too.
    entries = {
        name: {**parameters, "passfile": str(settings.password_file.absolute())}
        for name, parameters in services.items()
    }
    if all(present.get(name) == entry for name, entry in entries.items()):
        journal.unchanged("services", str(file))
        return
    act = journal.change if file.exists() else journal.create
    act(
        "services",
        str(file),
        lambda: credentials.write_services(file, entries),
        ", ".join(entries),
    )
