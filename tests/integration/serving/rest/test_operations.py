"""Every operation, against the same memory seen by the Python client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.integration.serving.rest.conftest import EMBEDDER, Rest, a_project, new_episode, refused

from pgrecall import Memory


@pytest.fixture(scope="module")
def memory(rest: Rest) -> Iterator[Memory]:
    """The same memory, in Python."""
    with Memory.open(
        rest.database.dsn, embedder=EMBEDDER, settings=rest.database.settings
    ) as opened:
        yield opened


def test_an_episode_from_its_record_to_its_end(rest: Rest, memory: Memory, project: str) -> None:
    given = new_episode(
        project,
        timestamp="2026-03-01T09:30:00+02:00",
        control_mode="memory_augmented",
        decision_source="planner",
        sprint_id="s-1",
        external_id="plan/1",
        chronicle_note_id=str(uuid4()),
    )
    answer = rest.post("/episodes", given)
    assert answer.status_code == 201
    episode = answer.json()
    stored = memory.episodes.get(episode["episode_id"])
    for name, value in given.items():
        if name not in ("timestamp", "chronicle_note_id"):
            assert episode[name] == value
            assert getattr(stored, name) == value
    assert stored.timestamp.isoformat() == "2026-03-01T07:30:00+00:00"
    assert episode["embedded"] is True

    found = rest.get(f"/episodes/{episode['episode_id']}")
    assert found.json() == episode
    outcome = rest.post(
        f"/episodes/{episode['episode_id']}/outcome", {"outcome": {"done": 5}, "quality": 0.8}
    )
    assert outcome.json()["outcome_quality"] == 0.8
    assert memory.episodes.get(episode["episode_id"]).outcome == {"done": 5}
    assert rest.ask("DELETE", f"/episodes/{episode['episode_id']}").status_code == 204
    refused(rest.get(f"/episodes/{episode['episode_id']}"), 404, "no-such-row")
    refused(rest.ask("DELETE", f"/episodes/{episode['episode_id']}"), 404, "no-such-row")


def test_the_same_external_id_is_the_same_episode(rest: Rest, project: str) -> None:
    first = rest.record(project, external_id="x")
    assert rest.record(project, external_id="x")["episode_id"] == first["episode_id"]
    other = rest.post("/episodes", new_episode(project, external_id="x", action={"n": 2}))
    assert "action differ" in refused(other, 409, "conflict")


def test_many_at_once_and_pages_of_them(rest: Rest, memory: Memory, project: str) -> None:
    episodes = [new_episode(project, external_id=f"n{n}", perception={"n": n}) for n in range(25)]
    answer = rest.post("/episodes/bulk", {"episodes": episodes, "burst": True}).json()
    assert (answer["created"], answer["existing"]) == (25, 0)
    again = rest.post("/episodes/bulk", {"episodes": episodes}).json()
    assert (again["created"], again["existing"]) == (0, 25)
    assert again["episode_ids"] == answer["episode_ids"]

    seen, cursor = [], None
    while True:
        more: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        page = rest.get("/episodes", params={"project_id": project, "limit": 10, **more}).json()
        seen += [item["episode_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(answer["episode_ids"])
    expected = [str(item.episode_id) for item in memory.episodes.list(project_id=project)]
    assert seen == expected
    count = rest.get("/episodes/count", params={"project_id": project, "perception": '{"n": 3}'})
    assert count.json() == {"count": 1}
    assert "cursor is" in refused(rest.get("/episodes?cursor=x"), 422, "invalid")
    deleted = rest.post("/episodes/delete", {"episode_ids": [*seen[:5], str(uuid4())]})
    assert deleted.json() == {"deleted": 5}


def test_recall_with_its_reasons(rest: Rest, memory: Memory, project: str) -> None:
    for n, words in enumerate(("declining velocity", "new customer", "broken build")):
        rest.record(project, perception={"seen": words}, outcome_quality=n / 4)
    asked = {"query": "velocity is declining", "project_id": project, "limit": 2}
    plain = rest.post("/episodes/recall", asked).json()
    expected = memory.episodes.recall("velocity is declining", project_id=project, limit=2)
    assert plain["account"] is None
    assert [hit["episode"]["episode_id"] for hit in plain["hits"]] == [
        str(hit.episode.episode_id) for hit in expected
    ]
    assert plain["hits"][0]["score"] == pytest.approx(expected[0].score, abs=1e-6)
    told = rest.post(
        "/episodes/recall", {**asked, "explain": True, "neighbours": True, "mode": "hybrid"}
    ).json()
    assert told["account"]["mode"] == "hybrid"
    assert told["account"]["why"]
    assert told["hits"][0]["terms"]["relevance_weight"] == pytest.approx(0.85)
    assert told["hits"][0]["neighbours"]
    ids = [hit["episode"]["episode_id"] for hit in plain["hits"]]
    vectors = rest.post("/episodes/embeddings", {"episode_ids": ids}).json()["embeddings"]
    assert {len(vector) for vector in vectors.values()} == {64}
    by_vector = rest.post(
        "/episodes/recall", {"embedding": vectors[ids[0]], "project_id": project, "limit": 1}
    ).json()
    assert by_vector["hits"][0]["similarity"] == pytest.approx(1)


def test_knowledge_from_its_evidence_to_its_end(rest: Rest, memory: Memory, project: str) -> None:
    evidence = [rest.record(project)["episode_id"] for _ in range(4)]
    given = {
        "knowledge_type": "strategy",
        "description": "Plan less when velocity declines.",
        "content": {"share": 0.67},
        "supporting_episodes": evidence[:3],
        "confidence": 0.7,
        "project_id": project,
    }
    answer = rest.post("/knowledge", given)
    assert answer.status_code == 201, answer.text
    known = answer.json()
    name = known["knowledge_id"]
    assert memory.knowledge.get(name).description == given["description"]
    assert rest.get(f"/knowledge/{name}").json() == known
    listed = rest.get("/knowledge", params={"project_id": project, "active": "all"}).json()
    # What all projects share is listed as well.
    own = [item for item in listed["items"] if item["project_id"] is not None]
    assert [item["knowledge_id"] for item in own] == [name]
    hits = rest.post("/knowledge/recall", {"query": "velocity", "project_id": project}).json()
    assert hits["hits"][0]["knowledge"]["knowledge_id"] == name
    applied = rest.post(
        f"/knowledge/{name}/applications", {"success": False, "episode_id": evidence[3]}
    ).json()
    assert applied["contradicting_episodes"] == [evidence[3]]
    held = rest.ask("DELETE", f"/episodes/{evidence[0]}")
    assert "rests on these episodes" in refused(held, 409, "conflict")
    assert rest.post(f"/knowledge/{name}/retire").json()["is_active"] is False
    refused(rest.post(f"/knowledge/{name}/applications", {"success": True}), 404, "no-such-row")
    assert rest.ask("DELETE", f"/knowledge/{name}").status_code == 204
    refused(rest.get(f"/knowledge/{name}"), 404, "no-such-row")
    lacking = rest.post("/knowledge", {**given, "supporting_episodes": evidence[:2]})
    assert "at least 3" in refused(lacking, 422, "invalid")


def test_a_session_from_its_goal_to_its_end(rest: Rest, memory: Memory, project: str) -> None:
    opened = rest.post(
        "/sessions",
        {"project_id": project, "user_id": "ada", "goal": "Plan.", "context": {"a": 1}, "ttl": 60},
    )
    assert opened.status_code == 201
    name = opened.json()["session_id"]
    path = f"/sessions/{name}"
    merged = rest.ask("PATCH", f"{path}/context", json={"context": {"b": 2}}).json()
    assert merged["active_context"] == {"a": 1, "b": 2}
    rest.post(f"{path}/thoughts", {"thought": {"text": "The backlog outgrew the team."}})
    assert rest.ask("PUT", f"{path}/goal", json={"goal": "Replan."}).json()["current_goal"]
    episode = rest.record(project)["episode_id"]
    related = rest.post(f"{path}/episodes", {"episode_id": episode}).json()
    assert related["related_episodes"] == [episode]
    longer = rest.post(f"{path}/extend", {"ttl": 7200}).json()
    assert longer["expires_at"] > opened.json()["expires_at"]
    stored = memory.sessions.get(name)
    assert (stored.current_goal, len(stored.thought_history or ())) == ("Replan.", 1)
    hits = rest.post("/sessions/recall", {"query": "backlog", "project_id": project}).json()["hits"]
    assert [hit["session_id"] for hit in hits] == [name]
    live = rest.get("/sessions", params={"project_id": project, "active": "true"}).json()
    assert [item["session_id"] for item in live["items"]] == [name]
    assert rest.post(f"{path}/close").json()["is_active"] is False
    refused(rest.post(f"{path}/thoughts", {"thought": {}}), 404, "no-such-row")
    assert rest.post("/sessions/expire").json() == {"expired": 0}
    assert rest.ask("DELETE", path).status_code == 204
    refused(rest.get(path), 404, "no-such-row")


def test_thoughts_of_a_session(rest: Rest, memory: Memory, project: str) -> None:
    name = str(uuid4())
    path = f"/sessions/{name}"
    body = {"project_id": project, "thoughts": [{"n": 1}], "context": {"a": 1}}
    assert rest.post(f"{path}/resume", body).json()["thought_history"] == [{"n": 1}]
    more = rest.post(f"{path}/resume", {"project_id": project, "thoughts": [{"n": 2}]}).json()
    assert (more["thought_history"], more["active_context"]) == ([{"n": 1}, {"n": 2}], {"a": 1})
    rest.post(f"{path}/thoughts/bulk", {"thoughts": [{"n": 3}, {"n": 4}]})
    assert rest.get(f"{path}/thoughts", params={"limit": 2}).json() == {
        "thoughts": [{"n": 3}, {"n": 4}]
    }
    again = {"Idempotency-Key": a_project()}
    for _ in range(2):
        popped = rest.ask("POST", f"{path}/thoughts/pop", headers=again)
        assert popped.json() == {"thought": {"n": 4}}
    assert len(memory.sessions.thoughts(name)) == 3
    assert rest.ask("DELETE", f"{path}/thoughts").json()["thought_history"] == []
    assert rest.post(f"{path}/thoughts/pop").json() == {"thought": None}
    refused(rest.post(f"{path}/resume", {"project_id": a_project()}), 409, "conflict")
    refused(rest.post(f"{path}/thoughts/bulk", {"thoughts": [{"n": "\0"}]}), 422, "invalid")
    rest.post(f"{path}/close")
    refused(rest.get(f"{path}/thoughts"), 404, "no-such-row")
    refused(rest.post(f"{path}/thoughts/pop"), 404, "no-such-row")


def test_metrics_of_operations(rest: Rest, project: str) -> None:
    rest.record(project)
    summary = rest.get("/metrics/summary", params={"project_id": project}).json()["operations"]
    assert [item["operation_type"] for item in summary] == ["record_episode"]
    rows = rest.get("/metrics", params={"project_id": project}).json()["items"]
    assert {UUID(row["metric_id"]) for row in rows}
    assert rest.post("/metrics/prune", {"keep": 3600, "project_id": project}).json() == {
        "deleted": 0
    }


def test_how_much_is_remembered(rest: Rest, project: str) -> None:
    rest.record(project, outcome_quality=0.5)
    rest.record(project)
    told = rest.get("/metrics/totals", params={"project_id": project}).json()
    assert (told["episodes"], told["with_outcome"], told["mean_quality"]) == (2, 1, 0.5)


def test_what_is_served(rest: Rest) -> None:
    told = rest.get("/memory").json()
    assert (told["dimensions"], told["model"]) == (64, "hash:64")
    assert told["access"]["scopes"] == ["admin", "read", "write"]
    assert rest.get("/staleness").json() == {
        "standby": False, "receiving": False, "seconds": 0.0, "bytes": 0,
    }  # fmt: skip


def test_rows_have_etags(rest: Rest, project: str) -> None:
    path = f"/episodes/{rest.record(project)['episode_id']}"
    tag = rest.get(path).headers["etag"]
    same = rest.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    rest.post(f"{path}/outcome", {"quality": 1})
    changed = rest.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_a_session_is_changed_only_as_it_is_known(rest: Rest, project: str) -> None:
    session = rest.post("/sessions", {"project_id": project}).json()["session_id"]
    path = f"/sessions/{session}"
    tag = rest.get(path).headers["etag"]
    change: dict[str, Any] = {"json": {"context": {"a": 1}}, "headers": {"If-Match": tag}}
    assert rest.ask("PATCH", f"{path}/context", **change).status_code == 200
    refused(rest.ask("PATCH", f"{path}/context", **change), 412, "changed")
    assert rest.get(path).json()["active_context"] == {"a": 1}


def test_documents_of_all_kinds_come_back_as_they_were(rest: Rest, project: str) -> None:
    document = {"long": 123456789012345678901234567890, "text": "a\u2028\U0001f600", "deep": [[{}]]}
    episode = rest.record(project, perception=document)
    assert episode["perception"] == document
    assert rest.get(f"/episodes/{episode['episode_id']}").json()["perception"] == document


def test_a_project_in_the_query_confines_a_call(rest: Rest, project: str) -> None:
    path = f"/episodes/{rest.record(project)['episode_id']}"
    assert rest.get(path, params={"project_id": project}).status_code == 200
    refused(rest.get(path, params={"project_id": a_project()}), 404, "no-such-row")
