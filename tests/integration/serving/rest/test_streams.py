"""Import and export as streams, and what becomes of requests when the server ends or is full."""

from __future__ import annotations

import gzip
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from tests.integration.serving.conftest import Serving
from tests.integration.serving.rest.conftest import API, Rest, new_episode, refused, rest_server

if TYPE_CHECKING:
    from pgrecall.testing import Template

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(*episodes: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(episode).encode() + b"\n" for episode in episodes)


def imported(rest: Rest, content: Any, query: str = "", **more: Any) -> httpx.Response:
    return rest.ask("POST", f"/episodes/import{query}", content=content, headers=NDJSON, **more)


def test_lines_that_are_bad_are_named_and_touch_no_others(rest: Rest, project: str) -> None:
    good = new_episode(project, external_id="a")
    content = lines(good) + b"nonsense\n\n" + lines({**good, "external_id": "b"}, {"x": 1})
    told = imported(rest, content).json()
    assert {name: told[name] for name in ("read", "created", "rejected")} == {
        "read": 4, "created": 2, "rejected": 2,
    }  # fmt: skip
    assert [error["line"] for error in told["errors"]] == [2, 5]
    assert "not JSON" in told["errors"][0]["reason"]
    again = imported(rest, gzip.compress(content)).json()
    assert (again["created"], again["existing"], again["rejected"]) == (0, 2, 2)


def test_what_was_exported_can_be_imported(rest: Rest, project: str) -> None:
    episodes = [
        new_episode(project, external_id=str(n), outcome_quality=0.5, perception={"n": n})
        for n in range(230)
    ]
    rest.post("/episodes/bulk", {"episodes": episodes})
    query = {"project_id": project, "with_embeddings": "true"}
    answer = rest.get("/episodes/export", params=query)
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert sorted(int(line["external_id"]) for line in found) == [*range(230)]
    assert {len(line["embedding"]) for line in found} == {64}
    assert imported(rest, answer.content).json()["existing"] == 230
    refused(rest.get("/episodes/export?since=soon"), 422, "invalid")


def test_a_key_for_one_project_imports_into_it_alone(rest: Rest, project: str) -> None:
    token = rest.key("write", projects=[project])
    content = lines(new_episode(project), new_episode("theirs"))
    told = imported(rest, content, token=token).json()
    assert (told["created"], told["rejected"]) == (1, 1)
    assert "for project" in told["errors"][0]["reason"]
    several = rest.key("write", projects=[project, "another"])
    refused(imported(rest, content, token=several), 403, "forbidden")
    refused(imported(rest, content, "?project_id=theirs", token=several), 403, "forbidden")


def test_memory_stays_bounded(rest: Rest, project: str) -> None:
    """40 MB go in and come out; neither is ever there whole."""
    text = "x" * 20_000

    def chunks() -> Iterator[bytes]:
        for n in range(2000):
            yield lines(new_episode(project, external_id=str(n), perception={"n": n, "t": text}))

    before = rest.server.most_memory()
    assert imported(rest, chunks(), "?embed=later").json()["created"] == 2000
    read = 0
    headers = {"Authorization": f"Bearer {rest.key()}"}
    url = f"{API}/episodes/export?project_id={project}"
    with rest.server.client.stream("GET", url, headers=headers) as answer:
        for chunk in answer.iter_bytes():
            read += len(chunk)
    assert read > 40_000_000
    assert rest.server.most_memory() - before < 100_000_000


def test_an_import_that_breaks_off_keeps_what_came(rest: Rest, project: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield lines(*(new_episode(project, external_id=str(n)) for n in range(600)))
        time.sleep(0.3)
        raise httpx.ReadError("gone")

    with pytest.raises(httpx.ReadError):
        imported(rest, chunks())
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = rest.get("/episodes/count", params={"project_id": project}).json()["count"]
        if found >= 512:
            break
        time.sleep(0.1)
    assert found >= 512
    whole = lines(*(new_episode(project, external_id=str(n)) for n in range(600)))
    told = imported(rest, whole).json()
    assert told["created"] + told["existing"] == 600


class TestOfItsOwn:
    """What a server is asked whose settings are the test's own."""

    def test_requests_under_way_are_finished(
        self, pgrecall_template: Template, tmp_path: Path
    ) -> None:
        with rest_server(pgrecall_template, tmp_path) as rest, ThreadPoolExecutor(1) as threads:
            begun = []

            def chunks() -> Iterator[bytes]:
                begun.append(True)
                for n in range(20):
                    yield lines(new_episode("p", external_id=str(n)))
                    time.sleep(0.05)

            under_way = threads.submit(imported, rest, chunks())
            while not begun:
                time.sleep(0.01)
            time.sleep(0.2)
            rest.server.process.send_signal(signal.SIGTERM)
            assert under_way.result(timeout=30).json()["created"] == 20
            assert rest.server.process.wait(timeout=30) == 0

    def test_more_than_it_takes_are_told_to_come_later(
        self, pgrecall_template: Template, tmp_path: Path
    ) -> None:
        with rest_server(
            pgrecall_template, tmp_path, PGRECALL_SERVE_MAX_REQUESTS="1"
        ) as rest, ThreadPoolExecutor(1) as threads:  # fmt: skip
            holding: list[bool] = []
            go: list[bool] = []

            def chunks() -> Iterator[bytes]:
                yield lines(new_episode("p"))
                holding.append(True)
                while not go:
                    time.sleep(0.01)

            under_way = threads.submit(imported, rest, chunks())
            while not holding:
                time.sleep(0.01)
            answer = rest.get("/episodes")
            refused(answer, 503, "busy")
            assert answer.headers["retry-after"] == "1"
            assert rest.server.get("/healthz").is_success
            go.append(True)
            assert under_way.result(timeout=30).is_success
            assert rest.get("/episodes").is_success

    def test_what_takes_too_long_is_given_up(
        self, pgrecall_template: Template, tmp_path: Path
    ) -> None:
        import psycopg

        with rest_server(
            pgrecall_template, tmp_path, PGRECALL_SERVE_REQUEST_TIMEOUT="1"
        ) as rest:  # fmt: skip
            name = rest.record("p")["episode_id"]
            with psycopg.connect(rest.database.admin_dsn) as other:
                other.execute("SELECT FROM agent_episodes WHERE episode_id = %s FOR UPDATE", [name])
                late = rest.post(f"/episodes/{name}/outcome", {"quality": 1})
                refused(late, 504, "timed-out")
            assert rest.post(f"/episodes/{name}/outcome", {"quality": 1}).is_success

    def test_without_a_database_there_are_embeddings_alone(self, stubbed: Serving) -> None:
        paths = stubbed.get("/openapi.json").json()["paths"]
        assert not [path for path in paths if path.startswith(API)]
        assert stubbed.get("/readyz").json() == {"status": "ok"}
        assert stubbed.get(f"{API}/episodes/{uuid4()}").status_code == 404
