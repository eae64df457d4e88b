"""Sessions: changed atomically while they live, refused afterwards."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgrecall import Memory, errors


def test_an_opened_session_is_what_get_returns(memory: Memory) -> None:
    opened = memory.sessions.open(
        project_id="apollo", user_id="ann", goal="plan sprint 7", context={"step": 1}, ttl=600
    )
    assert memory.sessions.get(opened.session_id) == opened
    assert opened.is_active
    assert opened.expires_at is not None
    assert opened.created_at is not None
    assert opened.expires_at - opened.created_at == timedelta(minutes=10)
    assert opened.thought_history == []


def test_updates_merge_append_and_extend(memory: Memory, make_episode: Any) -> None:
    session = memory.sessions.open(project_id="apollo", context={"a": 1, "b": {"x": 1}})
    episode = memory.episodes.record(**make_episode())
    memory.sessions.update_context(session.session_id, {"b": {"y": 2}, "c": None})
    memory.sessions.append_thought(session.session_id, {"n": 1})
    memory.sessions.append_thought(session.session_id, {"n": 2})
    memory.sessions.set_goal(session.session_id, "finish")
    memory.sessions.relate_episode(session.session_id, episode.episode_id)
    memory.sessions.relate_episode(session.session_id, episode.episode_id)
    found = memory.sessions.extend(session.session_id, timedelta(days=1))
    assert found.active_context == {"a": 1, "b": {"y": 2}, "c": None}
    assert found.thought_history == [{"n": 1}, {"n": 2}]
    assert found.current_goal == "finish"
    assert found.related_episodes == [episode.episode_id]
    assert found.expires_at is not None
    assert session.expires_at is not None
    assert found.expires_at > session.expires_at + timedelta(hours=20)
    assert found.last_updated is not None
    assert session.last_updated is not None
    assert found.last_updated > session.last_updated


def test_concurrent_updates_are_all_kept(memory: Memory) -> None:
    session = memory.sessions.open(project_id="apollo")
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: (
                    memory.sessions.update_context(session.session_id, {f"key-{i}": i}),
                    memory.sessions.append_thought(session.session_id, {"i": i}),
                ),
                range(30),
            )
        )
    found = memory.sessions.get(session.session_id)
    assert found.active_context == {f"key-{i}": i for i in range(30)}
    assert sorted(thought["i"] for thought in found.thought_history or []) == [*range(30)]


def test_a_closed_session_takes_no_more(memory: Memory) -> None:
    session = memory.sessions.open(project_id="apollo")
    assert not memory.sessions.close(session.session_id).is_active
    assert not memory.sessions.close(session.session_id).is_active
    with pytest.raises(errors.NotFound, match="no live session"):
        memory.sessions.append_thought(session.session_id, {"late": True})
    assert memory.sessions.get(session.session_id).thought_history == []


def test_sessions_end_when_their_time_is_up(memory: Memory) -> None:
    brief = memory.sessions.open(project_id="apollo", ttl=0.2)
    lasting = memory.sessions.open(project_id="apollo")
    time.sleep(0.3)
    assert [s.session_id for s in memory.sessions.active()] == [lasting.session_id]
    with pytest.raises(errors.NotFound, match="its time is up"):
        memory.sessions.update_context(brief.session_id, {"a": 1})
    assert memory.project("gemini").sessions.expire() == 0
    assert memory.sessions.expire() == 1
    assert memory.sessions.expire() == 0
    assert not memory.sessions.get(brief.session_id).is_active
    assert memory.sessions.get(lasting.session_id).is_active


def test_the_database_function_expires_the_same(
    memory: Memory, admin: psycopg.Connection[Any]
) -> None:
    brief = memory.sessions.open(project_id="apollo", ttl=0.1)
    time.sleep(0.2)
    admin.execute("SELECT cleanup_expired_working_memory()")
    assert not memory.sessions.get(brief.session_id).is_active


def test_listing_by_project_and_user(memory: Memory) -> None:
    ours = [memory.sessions.open(project_id="apollo", user_id="ann") for _ in range(5)]
    memory.sessions.open(project_id="apollo", user_id="bob")
    memory.sessions.open(project_id="gemini", user_id="ann")
    apollo = memory.project("apollo")
    first = apollo.sessions.list(user_id="ann", limit=3)
    second = apollo.sessions.list(user_id="ann", limit=3, cursor=first.next_cursor)
    assert [s.session_id for s in [*first, *second]] == [s.session_id for s in reversed(ours)]
    assert second.next_cursor is None
    memory.sessions.close(ours[0].session_id)
    assert len(apollo.sessions.active(user_id="ann")) == 4
    assert len(apollo.sessions.list(active=False)) == 1


def test_bad_values_are_refused(memory: Memory) -> None:
    for values, message in [
        ({}, "project_id is missing"),
        ({"project_id": "p" * 51}, "project_id"),
        ({"project_id": "p", "user_id": "u" * 101}, "user_id"),
        ({"project_id": "p", "ttl": -1}, "ttl is"),
        ({"project_id": "p", "ttl": float("inf")}, "ttl is inf"),
        ({"project_id": "p", "context": [1]}, "context"),
        ({"project_id": "p", "goal": "a\0b"}, "goal"),
    ]:
        with pytest.raises(errors.InvalidInput, match=message):
            memory.sessions.open(**values)  # type: ignore[arg-type]
    with pytest.raises(errors.NotFound):
        memory.sessions.get(uuid4())
    with pytest.raises(errors.InvalidInput, match="not a UUID"):
        memory.sessions.get("seven")
    with pytest.raises(errors.NotFound):
        memory.sessions.delete(uuid4())
    with pytest.raises(errors.InvalidInput, match="cursor is 'x'"):
        memory.sessions.list(cursor="x")
