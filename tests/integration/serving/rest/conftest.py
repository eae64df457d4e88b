"""One running server for a worker's tests: a real memory, and keys of all kinds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.integration.serving.conftest import Serving, serving

from pgrecall.ops.keys import create_key
from pgrecall.serving.access import SCOPES

if TYPE_CHECKING:
    from pgrecall.testing import Database, Template

EMBEDDER = "python:pgrecall.testing:HashEmbedder"
API = "/api/v1"
EVERYTHING = f"{SCOPES} [] None"


@dataclass
class Rest:
    """A running server with its database."""

    server: Serving
    database: Database
    tokens: dict[str, str] = field(default_factory=dict)

    def key(self, *scopes: str, projects: Sequence[str] = (), lifetime: float | None = None) -> str:
        """Return the token of a key; the same one for the same wishes."""
        scopes = scopes or SCOPES
        name = f"{scopes} {list(projects)} {lifetime}"
        if name not in self.tokens:
            made = create_key(
                self.database.owner_dsn,
                "test",
                scopes=scopes,
                projects=projects,
                lifetime=lifetime,
            )
            self.tokens[name] = made.token
        return self.tokens[name]

    def ask(
        self, method: str, path: str, *, token: str | None = None, **more: Any
    ) -> httpx.Response:
        """Ask below /api/v1, with a key for everything unless another is given."""
        headers = {
            "Authorization": f"Bearer {token or self.key()}",
            **more.pop("headers", {}),
        }
        return self.server.client.request(method, API + path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.ask("POST", path, json=body, **more)

    def record(self, project_id: str = "apollo", **more: Any) -> dict[str, Any]:
        answer = self.post("/episodes", new_episode(project_id, **more))
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body


def new_episode(project_id: str = "apollo", **more: Any) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "agent_version": "1.4.0",
        "perception": {"backlog_tasks": 12, "velocity_trend": "declining"},
        "reasoning": {"decision": "create_sprint"},
        "action": {"sprint_created": True},
        **more,
    }


def a_project() -> str:
    return f"p-{secrets.token_hex(4)}"


@contextmanager
def rest_server(
    template: Template, directory: Path, *flags: str, guarded: bool = False, **settings: str
) -> Iterator[Rest]:
    """Run a server; guarded, one that needs a key from its beginning."""
    with template.clone() as database:
        first = create_key(database.owner_dsn, "first", scopes=SCOPES) if guarded else None
        with serving(
            directory, "--dsn", database.dsn, "--embedder", EMBEDDER, *flags, **settings
        ) as server:  # fmt: skip
            rest = Rest(server, database)
            if first is not None:
                rest.tokens[EVERYTHING] = first.token
            yield rest


@pytest.fixture(scope="session")
def rest(pgrecall_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A server that has keys, for tests with projects of their own."""
    with rest_server(pgrecall_template, tmp_path_factory.mktemp("rest"), guarded=True) as found:
        yield found


@pytest.fixture
def project() -> str:
    """A project that no other test knows."""
    return a_project()


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """Check a problem, and return what it says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:problem-type:pgrecall:{code}", body
    assert body["status"] == status
    for private in ("SELECT", "INSERT", "psycopg", "Traceback", "postgresql://", "host=", ".py"):
        assert private not in answer.text
    return str(body["detail"])
