"""Who is let in, and how far: keys, scopes, projects, names, sizes; and what is never told."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest
from tests.integration.serving.conftest import wait_for
from tests.integration.serving.rest.conftest import (
    API,
    Rest,
    a_project,
    new_episode,
    refused,
    rest_server,
)
from tests.integration.serving.test_command import refused as command_refused

from pgrecall.core.keys import new_token
from pgrecall.ops.keys import create_key, list_keys, revoke_key

if TYPE_CHECKING:
    from pgrecall.testing import Template


def test_without_a_key_nothing_is_told(rest: Rest) -> None:
    rest.key()
    client = rest.server.client
    wait_for(lambda: client.get(f"{API}/episodes").status_code == 401, "it stays open", 10)
    for path in ("/episodes", "/nothing-here", "/memory", f"/episodes/{uuid4()}"):
        answer = client.get(API + path)
        refused(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/embed", "/metrics", "/embed/batch"):
        refused(client.post(path, json={"text": "a"}), 401, "unauthenticated")
    assert client.post("/v1/embeddings", json={"input": "a"}).json()["error"]["code"]
    for path in ("/healthz", "/readyz", "/health", "/openapi.json"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer x",
        "Basic dXNlcjpwYXNz",
        "Bearer pgr_000000000000_" + "0" * 64,
        "Bearer pgr_' OR 1=1 --",
        "Bearer " + "a" * 4000,
        "bearer \x7f",
    ],
)
def test_what_is_no_key(rest: Rest, header: str) -> None:
    rest.key()
    answer = rest.get("/episodes", headers={"Authorization": header})
    refused(answer, 401, "unauthenticated")
    assert "invalid_token" in answer.headers["www-authenticate"]


def test_the_identifier_alone_opens_nothing(rest: Rest) -> None:
    key_id = rest.key().split("_")[1]
    forged = new_token()._replace(key_id=key_id).text()
    refused(rest.get("/episodes", token=forged), 401, "unauthenticated")
    assert rest.get("/episodes", token=rest.key()).status_code == 200


def test_scopes_contain_no_others(rest: Rest, project: str) -> None:
    read, write, admin = rest.key("read"), rest.key("write"), rest.key("admin")
    body = new_episode(project)
    assert rest.get("/episodes", token=read).status_code == 200
    assert rest.post("/episodes", body, token=write).status_code == 201
    assert rest.post("/metrics/prune", {"keep": 9e8}, token=admin).status_code == 200
    assert "'write'" in refused(rest.post("/episodes", body, token=read), 403, "forbidden")
    refused(rest.get("/episodes", token=write), 403, "forbidden")
    refused(rest.get("/episodes", token=admin), 403, "forbidden")
    refused(rest.post("/metrics/prune", {"keep": 60}, token=write), 403, "forbidden")
    lines = rest.ask(
        "POST", "/episodes/import", token=read, content=b"{}",
        headers={"Content-Type": "application/x-ndjson"},
    )  # fmt: skip
    refused(lines, 403, "forbidden")


def test_a_revoked_key_ends_within_seconds(rest: Rest) -> None:
    made = create_key(rest.database.owner_dsn, "soon over", scopes=["read"])
    assert rest.get("/episodes", token=made.token).status_code == 200
    assert revoke_key(rest.database.owner_dsn, made.key_id).state == "revoked"
    begun = time.monotonic()
    wait_for(lambda: rest.get("/episodes", token=made.token).status_code == 401, "goes on", 7)
    assert time.monotonic() - begun < 6


def test_a_key_is_over_when_its_time_is(rest: Rest) -> None:
    token = rest.key("read", lifetime=1.0)
    wait_for(lambda: rest.get("/episodes", token=token).status_code == 401, "it stays valid", 5)


def test_secrets_are_not_stored(rest: Rest) -> None:
    token = rest.key()
    with psycopg.connect(rest.database.admin_dsn) as admin:
        text = str(admin.execute("SELECT k::text FROM pgrecall.api_keys AS k").fetchall())
    assert token.split("_")[2] not in text
    assert token not in repr(create_key(rest.database.owner_dsn, "shown"))
    assert all(key.state in ("valid", "expired", "revoked") for key in list_keys(
        rest.database.owner_dsn))  # fmt: skip
    assert token not in rest.server.told()


def test_the_server_can_make_no_keys(rest: Rest) -> None:
    with psycopg.connect(rest.database.dsn, autocommit=True) as app:
        for statement in (
            (
                "INSERT INTO pgrecall.api_keys (key_id, name, digest, scopes) "
                "VALUES ('a', 'a', sha256('a'), ARRAY['admin'])"
            ),
            "UPDATE pgrecall.api_keys SET revoked_at = NULL",
            "DELETE FROM pgrecall.api_keys",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement.encode())
    for role in ("readonly", "monitor"):
        with (
            psycopg.connect(rest.database.role_dsn(role)) as other,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            other.execute("SELECT * FROM pgrecall.api_keys")


@pytest.fixture(scope="module", params=["one", "two"])
def there(request: Any, rest: Rest) -> dict[str, Any]:
    """Rows of a project that the keys are not for, and of one that they are."""
    mine, other = a_project(), a_project()
    evidence = [rest.record(other, outcome_quality=0.1)["episode_id"] for _ in range(3)]
    knowledge = {
        "knowledge_type": "strategy", "description": "Theirs, a secret.", "content": {},
        "supporting_episodes": evidence,
    }  # fmt: skip
    return {
        "mine": mine,
        "also": [a_project()] if request.param == "two" else [],
        "other": other,
        "own": rest.record(mine)["episode_id"],
        "episode": evidence[0],
        "evidence": evidence,
        "knowledge": rest.post("/knowledge", {**knowledge, "project_id": other}).json()[
            "knowledge_id"
        ],
        "shared": rest.post("/knowledge", knowledge).json()["knowledge_id"],
        "session": rest.post("/sessions", {"project_id": other}).json()["session_id"],
    }


@pytest.fixture(scope="module")
def token(rest: Rest, there: dict[str, Any]) -> str:
    return rest.key("read", "write", "admin", projects=[there["mine"], *there["also"]])


class TestProjects:
    """A key for some projects reaches nothing else, by whatever way."""

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/episodes/{episode}", None),
            ("POST", "/episodes/{episode}/outcome", {"quality": 1}),
            ("DELETE", "/episodes/{episode}", None),
            ("GET", "/knowledge/{knowledge}", None),
            ("POST", "/knowledge/{knowledge}/applications", {"success": True}),
            ("POST", "/knowledge/{knowledge}/retire", None),
            ("DELETE", "/knowledge/{knowledge}", None),
            ("GET", "/sessions/{session}", None),
            ("PATCH", "/sessions/{session}/context", {"context": {}}),
            ("POST", "/sessions/{session}/thoughts", {"thought": {}}),
            ("POST", "/sessions/{session}/thoughts/bulk", {"thoughts": [{}]}),
            ("GET", "/sessions/{session}/thoughts", None),
            ("POST", "/sessions/{session}/thoughts/pop", None),
            ("DELETE", "/sessions/{session}/thoughts", None),
            ("PUT", "/sessions/{session}/goal", {"goal": "x"}),
            ("POST", "/sessions/{session}/extend", {}),
            ("POST", "/sessions/{session}/close", None),
            ("DELETE", "/sessions/{session}", None),
        ],
    )
    def test_rows_of_others_are_not_there(
        self, rest: Rest, there: dict[str, Any], token: str, method: str, path: str, body: Any
    ) -> None:
        answer = rest.ask(method, path.format(**there), token=token, json=body)
        said = refused(answer, 404, "no-such-row")
        # The same as of an identifier that nobody has.
        nowhere = {**there, **dict.fromkeys(("episode", "knowledge", "session"), str(uuid4()))}
        answer = rest.ask(method, path.format(**nowhere), token=token, json=body)
        assert len(refused(answer, 404, "no-such-row")) == len(said)

    @pytest.mark.parametrize(
        ("method", "path", "query", "body"),
        [
            ("GET", "/episodes", "project_id={other}", None),
            ("GET", "/episodes", "project_ids={mine}&project_ids={other}", None),
            ("GET", "/episodes/count", "project_id={other}", None),
            ("GET", "/episodes/export", "project_id={other}", None),
            ("GET", "/episodes/{episode}", "project_id={other}", None),
            ("POST", "/episodes/recall", "", {"query": "x", "project_id": "{other}"}),
            ("POST", "/episodes", "", new_episode("{other}")),
            ("POST", "/episodes/bulk", "",
             {"episodes": [new_episode("{mine}"), new_episode("{other}")]}),
            ("GET", "/knowledge", "project_id={other}", None),
            ("POST", "/knowledge/recall", "", {"query": "x", "project_id": "{other}"}),
            ("POST", "/sessions", "", {"project_id": "{other}"}),
            ("POST", "/sessions/{session}/resume", "", {"project_id": "{other}"}),
            ("GET", "/sessions", "project_id={other}", None),
            ("POST", "/sessions/recall", "", {"query": "x", "project_id": "{other}"}),
            ("GET", "/metrics", "project_id={other}", None),
            ("GET", "/metrics/summary", "project_id={other}", None),
            ("GET", "/metrics/totals", "project_id={other}", None),
            ("POST", "/metrics/prune", "", {"keep": 60, "project_id": "{other}"}),
            ("POST", "/knowledge", "",
             {"knowledge_type": "strategy", "description": "x", "content": {},
              "supporting_episodes": [], "active": False}),
        ],
    )  # fmt: skip
    def test_other_projects_are_refused(
        self, rest: Rest, there: dict[str, Any], token: str,
        method: str, path: str, query: str, body: Any,
    ) -> None:  # fmt: skip
        def filled(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: filled(item) for name, item in value.items()}
            if isinstance(value, list):
                return [filled(item) for item in value]
            named = {"{other}": there["other"], "{mine}": there["mine"]}
            return named.get(value, value) if isinstance(value, str) else value

        answer = rest.ask(method, f"{path}?{query}".format(**there), token=token, json=filled(body))
        refused(answer, 403, "forbidden")

    def test_lists_and_recalls_show_the_own_alone(
        self, rest: Rest, there: dict[str, Any], token: str
    ) -> None:
        listed = rest.get("/episodes", token=token).json()["items"]
        assert [item["episode_id"] for item in listed] == [there["own"]]
        assert rest.get("/episodes/count", token=token).json() == {"count": 1}
        hits = rest.post("/episodes/recall", {"query": "velocity", "limit": 50}, token=token)
        assert [hit["episode"]["episode_id"] for hit in hits.json()["hits"]] == [there["own"]]
        lines = rest.get("/episodes/export", token=token).text.splitlines()
        assert len(lines) == 1
        asked = {"episode_ids": [there["own"], there["episode"]]}
        vectors = rest.post("/episodes/embeddings", asked, token=token).json()["embeddings"]
        assert [*vectors] == [there["own"]]
        deleted = rest.post("/episodes/delete", {"episode_ids": there["evidence"]}, token=token)
        assert deleted.json() == {"deleted": 0}

    def test_the_shared_is_read_and_not_changed(
        self, rest: Rest, there: dict[str, Any], token: str
    ) -> None:
        path = f"/knowledge/{there['shared']}"
        assert rest.get(path, token=token).status_code == 200
        refused(rest.post(f"{path}/retire", token=token), 403, "forbidden")
        refused(rest.ask("DELETE", path, token=token), 403, "forbidden")
        applied = rest.post(f"{path}/applications", {"success": True}, token=token)
        refused(applied, 403, "forbidden")

    def test_episodes_of_others_are_no_evidence(
        self, rest: Rest, there: dict[str, Any], token: str
    ) -> None:
        given = {
            "knowledge_type": "strategy", "description": "x", "content": {},
            "supporting_episodes": there["evidence"], "project_id": there["mine"],
        }  # fmt: skip
        assert "no such episodes" in refused(
            rest.post("/knowledge", given, token=token), 422, "invalid"
        )
        opened = rest.post("/sessions", {"project_id": there["mine"]}, token=token).json()
        related = rest.post(
            f"/sessions/{opened['session_id']}/episodes",
            {"episode_id": there["episode"]},
            token=token,
        )
        refused(related, 422, "invalid")

    def test_an_identifier_of_others_tells_nothing_of_them(
        self, rest: Rest, there: dict[str, Any], token: str
    ) -> None:
        own = [rest.record(there["mine"])["episode_id"] for _ in range(3)]
        rest.post(
            "/knowledge",
            {"knowledge_type": "pattern", "description": "A secret of another.", "content": {},
             "supporting_episodes": own, "project_id": there["other"]},
        )  # fmt: skip
        held = rest.ask("DELETE", f"/episodes/{own[0]}", token=token)
        assert "secret" not in refused(held, 409, "conflict")
        taken = new_episode(there["mine"], episode_id=there["episode"], action={"n": 1})
        told = refused(rest.post("/episodes", taken, token=token), 409, "conflict")
        assert "differ" not in told
        assert there["other"] not in told

    def test_metrics_of_the_process_are_for_keys_of_all(self, rest: Rest, token: str) -> None:
        def ask(given: str) -> httpx.Response:
            return rest.server.client.get("/metrics", headers={"Authorization": f"Bearer {given}"})

        refused(ask(token), 403, "forbidden")
        assert "pgrecall_operation_duration_seconds" in ask(rest.key("read")).text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8750", "127.0.0.1.evil.example", "10.0.0.1", "", "a b"]
)
def test_other_names_than_its_own(rest: Rest, host: str) -> None:
    """A web page's name may lead here, but stays in the request."""
    answer = rest.get("/episodes", headers={"Host": host})
    refused(answer, 421, "wrong-host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:80"])
def test_its_own_names(rest: Rest, host: str) -> None:
    assert rest.get("/episodes", headers={"Host": host}).status_code == 200


def raw(rest: Rest, text: bytes) -> bytes:
    address = urlsplit(rest.server.address)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/v1/episodes HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        (
            b"GET /api/v1/episodes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\n"
            b"Authorization: Bearer b\r\n\r\n"
        ),
        b"GET /api/v1/episodes HTTP/1.1\r\nHost: localhost\r\nX: a\rY: b\r\n\r\n",
        b"GET /api/v1/epi\x00sodes HTTP/1.1\r\nHost: localhost\r\n\r\n",
        (
            b"POST /api/v1/episodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/episodes HTTP/1.1\r\n\r\n"
        ),
        b"GET /api/v1/episodes HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_smuggled_and_broken_heads(rest: Rest, head: bytes) -> None:
    rest.key()
    answer = raw(rest, head)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:100]
    assert answer.count(b"HTTP/1.1 ") <= 2  # nothing of it was taken for a request that is let in
    assert b"HTTP/1.1 2" not in answer


def test_answers_hold_no_line_ends_of_requests(rest: Rest) -> None:
    answer = rest.get("/episodes/%0d%0aX-Injected:%201")
    assert "x-injected" not in answer.headers
    refused(answer, 404, "not-found")
    refused(rest.get("/episodes?project_id=a%00b"), 422, "invalid")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "malformed-json"),
        (b"\xff", 400, "malformed-json"),
        (b"[" * 50_000, 400, "malformed-json"),
        (b"[]", 422, "invalid"),
        (b'{"project_id": "a"}', 422, "invalid"),
        (b'{"project_id": "a", "nope": 1}', 422, "invalid"),
    ],
)
def test_malformed_bodies(rest: Rest, content: bytes, status: int, code: str) -> None:
    answer = rest.ask(
        "POST", "/episodes", content=content, headers={"Content-Type": "application/json"}
    )
    refused(answer, status, code)


@pytest.mark.parametrize(
    "more",
    [
        {"perception": {"x": "\x00"}},
        {"perception": {"x": float("nan")}},
        {"outcome_quality": 1.5},
        {"timestamp": "yesterday"},
        {"timestamp": 1_700_000_000},
        {"timestamp": "2026-01-01T00:00:00"},
        {"episode_id": "x"},
        {"embedding": [1.0, 2.0]},
        {"embedding": [0.0] * 64},
        {"embedding": [1e30] * 64},
        {"agent_version": ""},
        {"agent_version": "a\x00"},
        {"perception": "text"},
    ],
)
def test_values_that_cannot_be_stored(rest: Rest, project: str, more: dict[str, Any]) -> None:
    import json

    answer = rest.ask(
        "POST", "/episodes", content=json.dumps(new_episode(project, **more)),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    refused(answer, 422, "invalid")
    assert rest.get("/episodes/count", params={"project_id": project}).json() == {"count": 0}


def test_oversized_bodies(rest: Rest, project: str) -> None:
    large = new_episode(project, perception={"text": "a" * 4_300_000})
    refused(rest.post("/episodes", large), 413, "too-large")
    document = new_episode(project, perception={"text": "a" * 1_100_000})
    assert "1,048,576" in refused(rest.post("/episodes", document), 422, "invalid")


def test_other_types_than_json(rest: Rest) -> None:
    """What a web page can send without asking."""
    answer = rest.ask("POST", "/episodes", content=b"{}", headers={"Content-Type": "text/plain"})
    refused(answer, 415, "unsupported-media-type")
    answer = rest.ask(
        "POST", "/episodes/import", content=b"{}", headers={"Content-Type": "text/plain"}
    )
    refused(answer, 415, "unsupported-media-type")


def test_a_database_that_is_gone_tells_nothing(pgrecall_template: Template, tmp_path: Path) -> None:
    with rest_server(pgrecall_template, tmp_path, PGRECALL_CONNECT_TIMEOUT="1") as rest:
        assert rest.get("/episodes").status_code == 200
        with psycopg.connect(rest.database.admin_dsn, dbname="postgres", autocommit=True) as admin:
            name = rest.database.name
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            try:
                for answer in (rest.get("/episodes"), rest.server.get("/readyz")):
                    told = refused(answer, 503, "unavailable")
                    assert name not in told
                    assert "retry-after" in answer.headers
                assert rest.server.get("/healthz").status_code == 200
            finally:
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
        wait_for(lambda: rest.server.get("/readyz").is_success, "it does not come back")


def test_a_schema_that_does_not_fit_is_not_ready(
    pgrecall_template: Template, tmp_path: Path
) -> None:
    with rest_server(pgrecall_template, tmp_path) as rest:
        with psycopg.connect(rest.database.admin_dsn, autocommit=True) as admin:
            admin.execute("UPDATE pgrecall.alembic_version SET version_num = '9.0.0'")
        refused(rest.server.get("/readyz"), 503, "schema")


def test_beyond_this_machine_with_keys_alone(pgrecall_template: Template, tmp_path: Path) -> None:
    with pgrecall_template.clone() as database:
        flags = ("--dsn", database.dsn, "--embedder", "none", "--host", "0.0.0.0", "--port", "0")
        told = command_refused(tmp_path, *flags).stderr
        assert "there are no keys" in told
        assert "pgrecall keys create" in told
        create_key(database.owner_dsn, "one")
    with pgrecall_template.clone() as database:
        from tests.integration.serving.conftest import serving

        token = create_key(database.owner_dsn, "one", scopes=["read"]).token
        with serving(tmp_path, "--dsn", database.dsn, "--embedder", "none",
                     "--host", "0.0.0.0") as server:  # fmt: skip
            address = f"http://127.0.0.1:{urlsplit(server.address).port}{API}/episodes"
            assert httpx.get(address).status_code == 401
            good = {"Authorization": f"Bearer {token}", "Host": "memory.example"}
            assert httpx.get(address, headers=good).status_code == 200


def test_on_this_machine_it_is_open_until_there_is_a_key(
    pgrecall_template: Template, tmp_path: Path
) -> None:
    with rest_server(pgrecall_template, tmp_path) as rest:
        client = rest.server.client
        assert client.get(f"{API}/memory").json()["access"]["name"] == "local"
        made = create_key(rest.database.owner_dsn, "first", scopes=["read"])
        wait_for(lambda: client.get(f"{API}/memory").status_code == 401, "it stays open", 7)
        revoke_key(rest.database.owner_dsn, made.key_id)
        time.sleep(0.1)
        refused(client.get(f"{API}/memory"), 401, "unauthenticated")
