"""Makes a database from a dump, with all that a dump leaves out: roles, rights and settings."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from pgrecall.config import Settings
from pgrecall.errors import BackupError, OperationRefused, PermissionDenied
from pgrecall.ops.backup import tools
from pgrecall.ops.backup.manifest import Database, Manifest
from pgrecall.ops.backup.session import Session, open_session
from pgrecall.ops.local import is_local
from pgrecall.ops.pace import Pace

_NOT_RESTORED = re.compile(r"^\d+; \d+ \d+ (EXTENSION - |COMMENT - EXTENSION )")
_VERBOSE = re.compile(r'(?P<doing>creating [A-Z ]+|processing data for table) "(?P<name>[^"]+)"')
_FALLBACK = "C.UTF-8"
_LEAST_MEMORY, _MOST_MEMORY = 64 << 20, 2 << 30
_GRAPH_FACTOR = 1.6
"""Memory of an HNSW build over the vectors' own bytes, with pgvector's default of m = 16."""


@dataclass(slots=True)
class Rebuilder:
    """Rebuilds databases of one backup on one server.

    Attributes:
        admin_dsn: Connection string of an administrator.
        made: The backup.
        settings: Name where PostgreSQL's programs are.
        jobs: Parallel connections of pg_restore.
        say: Called with what is being done.
        notes: What turned out otherwise than at the source.
    """

    admin_dsn: str
    made: Manifest
    settings: Settings
    jobs: int
    say: Callable[[str], None]
    notes: list[str]

    def check_server(self) -> None:
        """Refuse a server that this backup cannot be restored on, or not by this role.

        Raises:
            OperationRefused: The server is older than the source.
            PermissionDenied: The role may not create databases.
        """
        with open_session(self.admin_dsn) as admin:
            server, rights = admin.one("server"), admin.one("may_create")
            source = int(re.split(r"\D", self.made.server, maxsplit=1)[0])
            if server["major"] < source:
                raise OperationRefused(
                    f"the backup comes from PostgreSQL {self.made.server}, and the server is "
                    f"{server['version']}: a dump goes to the same major version or a later one",
                    hint=f"restore it on a PostgreSQL {source} or later",
                )
            if server["in_recovery"]:
                raise OperationRefused("the server is a standby", hint="restore on the primary")
            if not rights["databases"]:
                raise PermissionDenied(
                    f"{server['role']} may not create databases",
                    hint="give an administrator's connection string",
                )

    def rebuild(self, database: Database, name: str, dump: Path) -> None:
        """Make the database ``name`` from a dump; it is dropped again if that fails.

        Raises:
            BackupError: pg_restore failed.
            PgrecallError: The server refused.
        """
        with open_session(self.admin_dsn) as admin:
            self._roles(admin)
            self._create(admin, database, name)
        try:
            with open_session(self.admin_dsn, name) as session:
                self._extensions(session, database)
                self._restore(session, database, dump)
                self._properties(session, database, name)
                self.say(f"{name}: vacuuming and analysing")
                session.run("vacuum")
        except BaseException:
            self.drop(name)
            raise

    def drop(self, name: str) -> None:
        """Drop a database, ending whoever uses it."""
        with open_session(self.admin_dsn) as admin:
            admin.run("drop_database", database=sql.Identifier(name))

    def _roles(self, admin: Session) -> None:
        known = {row["name"] for row in admin.rows("known_roles")}
        missing = [role for role in self.made.roles if role.name not in known]
        superuser = admin.one("may_create")["superuser"]
        for role in missing:
            identifier = sql.Identifier(role.name)
            admin.run("create_role", role=identifier)
            if role.login:
                admin.run("allow_login", role=identifier)
            if role.bypass_rls and superuser:
                admin.run("bypass_rls", role=identifier)
        for role in missing:
            for parent in role.member_of:
                if parent in known or parent in {other.name for other in missing}:
                    admin.run(
                        "grant_role", parent=sql.Identifier(parent), role=sql.Identifier(role.name)
                    )
        if missing:
            self.notes.append(
                f"created without passwords: {', '.join(role.name for role in missing)}; "
                "give them some with: pgrecall init --dsn ADMIN_DSN --reset-passwords"
            )

    def _create(self, admin: Session, database: Database, name: str) -> None:
        parts = {
            "database": sql.Identifier(name),
            "encoding": sql.Literal(database.encoding),
            "locale": sql.Literal(database.locale),
        }
        try:
            admin.run(f"create_database_{database.locale_provider}", **parts)
        except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue):
            # A libc locale of the source that this host does not have.
            if database.encoding != "UTF8":
                raise
            parts["locale"] = sql.Literal(_FALLBACK)
            admin.run("create_database_builtin", **parts)
            self.notes.append(
                f"this server has no locale {database.locale} ({database.locale_provider}); "
                f"{name} got {_FALLBACK}, so texts may sort otherwise"
            )
        admin.run("close_database", database=sql.Identifier(name))

    def _extensions(self, session: Session, database: Database) -> None:
        """Create them first: a dump would create them as it likes, and fail for lack of one."""
        available = {row["name"] for row in session.rows("available_extensions")}
        for extension in database.extensions:
            if extension not in available:
                self.notes.append(f"this server has no extension {extension}; it is left out")
                continue
            schema = sql.Identifier(database.extension_schemas[extension])
            if database.extension_schemas[extension] != "pg_catalog":
                session.run("create_schema", schema=schema)
            session.run("create_extension", extension=sql.Identifier(extension), schema=schema)

    def _restore(self, session: Session, database: Database, dump: Path) -> None:
        server = session.one("server")
        program = tools.find("pg_restore", self.settings, server_major=server["major"])
        doing = f"restore {database.name}"
        options = self._memory(session, database)
        with (
            tools.environment(session.connection, options=options) as env,
            tempfile.TemporaryDirectory(prefix="pgrecall-") as folder,
        ):
            listed = tools.run(program, ["--list", str(dump)], env=env, doing=doing)
            lines = [line for line in listed.splitlines() if not _NOT_RESTORED.match(line)]
            wanted = Path(folder) / "contents"
            wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
            tools.run_telling(
                program,
                [
                    "--exit-on-error",
                    "--no-subscriptions",
                    "--verbose",
                    f"--jobs={self.jobs}",
                    f"--use-list={wanted}",
                    f"--dbname={_dbname(env)}",
                    str(dump),
                ],
                env=env,
                doing=doing,
                tell=_Teller(self.say, database, self.jobs),
            )

    def _memory(self, session: Session, database: Database) -> dict[str, str]:
        """Give index builds the memory that they need; in parallel only where it is there.

        Parallel builds take theirs from /dev/shm, and fail where that is small.
        """
        info = session.connection.info
        vectors = max((table.vectors or 0 for table in database.tables), default=0)
        wanted = int(vectors * (database.dimensions or 0) * 4 * _GRAPH_FACTOR)
        memory = min(max(wanted, _LEAST_MEMORY), _MOST_MEMORY)
        local = is_local(info.host, info.backend_pid)
        room = shutil.disk_usage("/dev/shm").free if local else 0  # noqa: S108
        return {
            "maintenance_work_mem": f"{memory >> 10}kB",
            "max_parallel_maintenance_workers": "2" if room > 2 * memory else "0",
            "statement_timeout": "0",
            "lock_timeout": "0",
        }

    def _properties(self, session: Session, database: Database, name: str) -> None:
        """Put back what belongs to the database itself: its owner, rights and settings."""
        identifier = sql.Identifier(name)
        known = {row["name"] for row in session.rows("known_roles")}
        if "vector" in database.extensions:
            session.run("load_vector")
        for setting in database.settings:
            session.rows("set_here", {"name": setting.name, "value": setting.value})
            part = sql.Identifier(*setting.name.split("."))
            if setting.role is None:
                session.run("set_database", database=identifier, name=part)
            elif setting.role in known:
                role = sql.Identifier(setting.role)
                session.run("set_role_in_database", role=role, database=identifier, name=part)
        for grant in database.grants:
            if grant.grantee is None or grant.grantee in known:
                session.run(
                    "grant_database",
                    privilege=sql.SQL(grant.privilege),
                    database=identifier,
                    grantee=sql.SQL("PUBLIC")
                    if grant.grantee is None
                    else sql.Identifier(grant.grantee),
                )
        if database.owner in known:
            session.run("give_database", database=identifier, owner=sql.Identifier(database.owner))
        else:
            self.notes.append(f"this server has no role {database.owner}, the owner at the source")


def _dbname(env: dict[str, str]) -> str:
    """Return what makes pg_restore connect as its environment says; it needs a name given."""
    return f"service={env['PGSERVICE']}"


class _Teller:
    """Turns pg_restore's lines into how far it is.

    Loading a table and building an index count with the bytes that they took at the source.
    """

    def __init__(self, say: Callable[[str], None], database: Database, jobs: int) -> None:
        self._say = say
        self._name = database.name
        self._sizes = database.sizes
        self._pace = Pace(sum(database.sizes.values()))
        self._done = 0
        self._under_way: deque[int] = deque()
        self._jobs = jobs

    def __call__(self, line: str) -> None:
        """Take a line."""
        match = _VERBOSE.search(line)
        if match is None:
            return
        what, name = match["doing"], match["name"]
        if not what.startswith("creating TABLE"):
            # A constraint is named after its table, and its index after the constraint.
            schema, _, last = name.partition(".")
            self._begun(self._sizes.get(f"{schema}.{last.rpartition(' ')[2]}", 0))
        done = f", {self._pace.at(self._done)}" if any(self._sizes.values()) else ""
        self._say(f"restoring {self._name}: {what} {name}{done}")

    def _begun(self, size: int) -> None:
        """Take an item as begun, and the one that as many others began after as done."""
        self._under_way.append(size)
        if len(self._under_way) > self._jobs:
            self._done += self._under_way.popleft()


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what would fill a disk.

    Raises:
        BackupError: There is too little room.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupError(
            f"{what} needs {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free",
            hint="let TMPDIR name a directory with more room",
        )
