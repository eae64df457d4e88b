"""A real server, names of one's own on it, and everything put away afterwards."""

from __future__ import annotations

import os
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from pgrecall.config import Settings, load_settings

Rows = list[dict[str, Any]]

# Everything that provisioning could touch, with the row versions: a run that rewrites a row
# without changing it shows as well.
CLUSTER = """
SELECT 'role' AS kind, rolname AS name, pg_authid.xmin::text AS version, rolpassword AS content
  FROM pg_authid WHERE rolname LIKE %(like)s
UNION ALL
SELECT 'database', datname, xmin::text, datacl::text FROM pg_database WHERE datname LIKE %(like)s
UNION ALL
SELECT 'setting', setrole::text || '/' || setdatabase::text, pg_db_role_setting.xmin::text,
       setconfig::text
  FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole WHERE rolname LIKE %(like)s
UNION ALL
SELECT 'member', roleid::regrole::text || '/' || member::regrole::text, xmin::text, NULL
  FROM pg_auth_members
 WHERE roleid::regrole::text LIKE %(quoted)s OR member::regrole::text LIKE %(quoted)s
 ORDER BY 1, 2
"""
INSIDE = """
SELECT 'class' AS kind, oid::text AS name, xmin::text AS version, relacl::text AS content
  FROM pg_class WHERE oid >= 16384
UNION ALL SELECT 'attribute', attrelid::text || '.' || attnum, xmin::text, attacl::text
  FROM pg_attribute WHERE attrelid >= 16384
UNION ALL SELECT 'proc', oid::text, xmin::text, proacl::text FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT 'namespace', nspname, xmin::text, nspacl::text FROM pg_namespace
UNION ALL SELECT 'constraint', oid::text, xmin::text, NULL FROM pg_constraint WHERE oid >= 16384
UNION ALL SELECT 'default', oid::text, xmin::text, defaclacl::text FROM pg_default_acl
UNION ALL SELECT 'extension', extname, xmin::text, extversion FROM pg_extension
UNION ALL SELECT 'rewrite', oid::text, xmin::text, NULL FROM pg_rewrite WHERE oid >= 16384
 ORDER BY 1, 2
"""


class Server:
    """The test server, with a prefix of this test's own for databases and roles."""

    def __init__(self, admin_dsn: str) -> None:
        self.dsn = admin_dsn
        self.prefix = f"pt{secrets.token_hex(4)}"

    def name(self, suffix: str = "db") -> str:
        return f"{self.prefix}{suffix}"

    def dsn_of(self, database: str = "postgres", **others: str) -> str:
        return make_conninfo(self.dsn, dbname=database, **others)

    @contextmanager
    def connect(
        self, database: str = "postgres", **others: str
    ) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        with psycopg.connect(
            self.dsn_of(database, **others), autocommit=True, row_factory=dict_row
        ) as connection:
            yield connection

    def run(self, text: str, database: str = "postgres", **others: str) -> None:
        with self.connect(database, **others) as connection:
            connection.execute(text)

    def rows(self, text: str, database: str = "postgres", **others: str) -> Rows:
        with self.connect(database, **others) as connection:
            return list(connection.execute(text).fetchall())

    def value(self, text: str, database: str = "postgres", **others: str) -> Any:
        (row,) = self.rows(text, database, **others)
        (value,) = row.values()
        return value

    def snapshot(self, database: str | None = None) -> Rows:
        like = {"like": f"{self.prefix}%", "quoted": f"%{self.prefix}%"}
        with self.connect() as connection:
            rows = list(connection.execute(CLUSTER, like).fetchall())
        return rows + (self.rows(INSIDE, database) if database else [])

    def role(self, suffix: str, attributes: str = "LOGIN") -> str:
        name = self.name(suffix)
        # With the administrator's password, if there is one, so that dsn_of(user=name) works.
        password = conninfo_to_dict(self.dsn).get("password")
        secret = sql.SQL(" PASSWORD {}").format(password) if password else sql.SQL("")
        statement = sql.SQL("CREATE ROLE {} ").format(sql.Identifier(name))
        with self.connect() as connection:
            connection.execute(statement + sql.SQL(attributes) + secret)
        return name

    def tidy(self) -> None:
        like = f"{self.prefix}%"
        with self.connect() as connection:
            found = connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE %s", [like]
            ).fetchall()
            for row in found:
                name = sql.Identifier(row["datname"])
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            found = connection.execute(
                "SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [like]
            ).fetchall()
            names = [sql.Identifier(row["rolname"]) for row in found]
            for name in names:
                connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
            for name in names:
                connection.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.fixture
def server(admin_dsn: str) -> Iterator[Server]:
    made = Server(admin_dsn)
    yield made
    made.tidy()


@pytest.fixture(scope="module")
def module_server(admin_dsn: str) -> Iterator[Server]:
    made = Server(admin_dsn)
    yield made
    made.tidy()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(config_dir=tmp_path / "config")


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(config_dir=tmp_path_factory.mktemp("provision") / "config")


@pytest.fixture(scope="session")
def appendix() -> str:
    """The specification's own SQL, as its first users applied it."""
    data = os.environ.get("PGRECALL_EVAL_DATA")
    path = Path(data or "absent").parent / "spec" / "CR_Agent_01.md"
    if not data or not path.is_file():
        pytest.skip("not run: the specification is found beside PGRECALL_EVAL_DATA")
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", text[text.index("## Appendix A") :], re.DOTALL)
    return str(blocks[-1])


@pytest.fixture
def by_hand(server: Server, appendix: str) -> Callable[..., tuple[str, str]]:
    """Return a function that applies the specification's SQL, and gives database and user."""

    def make(*, dimensions: int = 1536, as_user: bool = False, keep: str = "") -> tuple[str, str]:
        database, user = server.name(), server.role("chronicle")
        text = appendix.replace("chronicle_user", f'"{user}"')
        text = text.replace("vector(1536)", f"vector({dimensions})")
        available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'uuid-ossp'"
        if not server.value(available):
            text = text.replace('CREATE EXTENSION IF NOT EXISTS "uuid-ossp";', "")
        owner = f' OWNER "{user}"' if as_user else ""
        server.run(f'CREATE DATABASE "{database}"{owner} TEMPLATE template0')
        server.run("CREATE EXTENSION vector; CREATE EXTENSION pg_trgm", database)
        server.run(f'GRANT ALL ON DATABASE "{database}" TO "{user}"')
        with server.connect(database) as connection:
            if as_user:
                connection.execute(
                    sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(user))
                )
            connection.execute(
                f'GRANT ALL ON SCHEMA public TO "{user}";'
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES "
                f'TO "{user}"; ALTER DEFAULT PRIVILEGES IN SCHEMA public '
                f'GRANT ALL ON SEQUENCES TO "{user}";'
            )
            connection.execute(text)
        return database, user

    return make


class FakePooler:
    """A proxy that announces another backend's PID, as a pooler does."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closing the listener ends the loop
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
                self._sockets += [client, upstream]
                threading.Thread(target=self._pump, args=(client, upstream), daemon=True).start()
                threading.Thread(target=self._answer, args=(upstream, client), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # either side may hang up at any time
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError, struct.error):  # either side may hang up at any time
            reader = source.makefile("rb")
            while kind := reader.read(1):
                if kind == b"N":  # no TLS, no GSS: a single byte during the start
                    following = reader.peek(4)[:4]
                    if len(following) < 4 or struct.unpack("!I", following)[0] > 1 << 20:
                        target.sendall(kind)
                        continue
                (length,) = struct.unpack("!I", reader.read(4))
                body = reader.read(length - 4)
                if kind == b"K":
                    (pid,) = struct.unpack("!i", body[:4])
                    body = struct.pack("!i", pid + 1) + body[4:]
                target.sendall(kind + struct.pack("!I", length) + body)

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@pytest.fixture
def pooled_dsn(admin_dsn: str) -> Iterator[str]:
    with psycopg.connect(admin_dsn) as connection:
        host, port = connection.info.host, connection.info.port
    if host.startswith("/"):
        pytest.skip("not run: the test server listens on a socket only")
    pooler = FakePooler(host, port)
    yield make_conninfo(
        admin_dsn,
        host="127.0.0.1",
        port=str(pooler.port),
        sslmode="disable",
        gssencmode="disable",
    )
    pooler.close()
