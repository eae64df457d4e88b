"""Requests that are sent again: done once, answered the same, whatever happens between."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from tests.integration.serving.rest.conftest import EMBEDDER, Rest, new_episode, refused

from pgrecall.ops.keys import create_key

if TYPE_CHECKING:
    from pgrecall.testing import Template


def count(rest: Rest, project: str) -> int:
    found: int = rest.get("/episodes/count", params={"project_id": project}).json()["count"]
    return found


def once(key: str) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": key}}


def test_the_same_request_is_done_once(rest: Rest, project: str) -> None:
    key, body = str(uuid4()), new_episode(project)
    first = rest.post("/episodes", body, **once(key))
    again = rest.post("/episodes", body, **once(key))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert first.json()["embedded"] is True
    assert count(rest, project) == 1
    assert rest.post("/episodes", body, **once(str(uuid4()))).status_code == 201
    assert count(rest, project) == 2


def test_another_request_under_the_same_key_is_refused(rest: Rest, project: str) -> None:
    key = str(uuid4())
    rest.post("/episodes", new_episode(project), **once(key))
    other = rest.post("/episodes", new_episode(project, action={"n": 2}), **once(key))
    refused(other, 422, "idempotency-key-reused")
    bulk = {"episodes": [new_episode(project)]}
    refused(rest.post("/episodes/bulk", bulk, **once(key)), 422, "idempotency-key-reused")
    assert count(rest, project) == 1


def test_a_key_is_its_callers_alone(rest: Rest, project: str) -> None:
    key, body = str(uuid4()), new_episode(project)
    for token in (rest.key("write"), rest.key("write", "read")):
        answer = rest.post("/episodes", body, token=token, **once(key))
        assert "idempotency-replayed" not in answer.headers
    assert count(rest, project) == 2


def test_many_at_once_are_one(rest: Rest, project: str) -> None:
    key, body = str(uuid4()), new_episode(project)
    with ThreadPoolExecutor(12) as threads:
        answers = [*threads.map(lambda _: rest.post("/episodes", body, **once(key)), range(24))]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert count(rest, project) == 1


def test_what_failed_may_be_tried_again(rest: Rest, project: str) -> None:
    key, name = str(uuid4()), str(uuid4())
    path = f"/episodes/{name}/outcome"
    refused(rest.post(path, {"quality": 1}, **once(key)), 404, "no-such-row")
    rest.record(project, episode_id=name)
    assert rest.post(path, {"quality": 1}, **once(key)).json()["outcome_quality"] == 1


def test_every_writing_post_takes_a_key(rest: Rest, project: str) -> None:
    evidence = [rest.record(project)["episode_id"] for _ in range(3)]
    knowledge = {
        "knowledge_type": "pattern", "description": "x y", "content": {},
        "supporting_episodes": evidence, "project_id": project,
    }  # fmt: skip

    def twice(path: str, body: Any = None) -> Any:
        key = str(uuid4())
        first, again = (rest.post(path, body, **once(key)) for _ in range(2))
        assert first.is_success, first.text
        assert again.content == first.content
        assert again.headers["idempotency-replayed"] == "true"
        return first.json()

    known = twice("/knowledge", knowledge)
    assert known["embedded"] is True
    path = f"/knowledge/{known['knowledge_id']}"
    assert twice(f"{path}/applications", {"success": True})["times_applied"] == 1
    assert twice(f"{path}/retire")["times_applied"] == 1
    session = twice("/sessions", {"project_id": project})["session_id"]
    assert len(twice(f"/sessions/{session}/thoughts", {"thought": {}})["thought_history"]) == 1
    twice(f"/sessions/{session}/episodes", {"episode_id": evidence[0]})
    twice(f"/sessions/{session}/extend", {"ttl": 60})
    twice(f"/sessions/{session}/close")
    empty = new_episode(project, perception={}, reasoning={}, action={})
    bulk = {"episodes": [new_episode(project, external_id="b"), empty]}
    assert twice("/episodes/bulk", bulk)["created"] == 2
    assert twice("/metrics/prune", {"keep": 9e8})["deleted"] == 0
    ids = [item["episode_id"] for item in rest.get(
        "/episodes", params={"project_id": project, "limit": 1}).json()["items"]]  # fmt: skip
    assert twice("/episodes/delete", {"episode_ids": ids}) == {"deleted": 1}


@pytest.mark.parametrize("key", ["", "a b", "x" * 201])
def test_keys_that_are_none(rest: Rest, project: str, key: str) -> None:
    refused(rest.post("/episodes", new_episode(project), **once(key)), 422, "invalid")


def test_old_answers_are_forgotten(rest: Rest, project: str) -> None:
    key, body = str(uuid4()), new_episode(project)
    rest.post("/episodes", body, **once(key))
    with psycopg.connect(rest.database.admin_dsn, autocommit=True) as admin:
        admin.execute(
            "UPDATE pgrecall.request_answers SET created_at = now() - interval '25 hours' "
            "WHERE request_key = %s", [key],
        )  # fmt: skip
        from pgrecall.sql import load

        admin.execute(load("serving")["forget"], {"hours": 24})
    assert "idempotency-replayed" not in rest.post("/episodes", body, **once(key)).headers


def test_a_server_killed_amid_a_request_leaves_all_or_nothing(
    pgrecall_template: Template, tmp_path: Path
) -> None:
    """Work and answer are one transaction, whenever the process dies."""
    import httpx
    from tests.integration.serving.conftest import serving

    with pgrecall_template.clone() as database:
        token = create_key(database.owner_dsn, "x").token
        keys = [str(uuid4()) for _ in range(60)]

        def send(client: httpx.Client, key: str) -> int:
            try:
                answer = client.post(
                    "/api/v1/episodes",
                    json=new_episode("p", reasoning={"key": key}),
                    headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
                )
            except httpx.HTTPError:
                return 0
            return answer.status_code

        flags = ("--dsn", database.dsn, "--embedder", EMBEDDER)
        with serving(tmp_path, *flags) as server, ThreadPoolExecutor(12) as threads:
            under_way = [threads.submit(send, server.client, key) for key in keys]
            while sum(work.done() for work in under_way) < 15:
                pass
            server.process.send_signal(signal.SIGKILL)
            first = [work.result() for work in under_way]
        assert 0 in first
        with serving(tmp_path, *flags) as server:
            assert {send(server.client, key) for key in keys} == {201}
        with psycopg.connect(database.admin_dsn) as admin:
            rows = admin.execute("SELECT reasoning->>'key' FROM agent_episodes").fetchall()
        assert sorted(key for (key,) in rows) == sorted(keys)
