"""Thoughts of a session: many at once, the last of them, taken back, and sessions resumed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgrecall import Memory, errors


def numbers(*ns: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in ns]


@pytest.fixture
def session(memory: Memory) -> UUID:
    return memory.sessions.open(project_id="apollo").session_id


def test_the_last_thoughts_in_order(memory: Memory, session: UUID) -> None:
    assert memory.sessions.thoughts(session) == []
    assert memory.sessions.thoughts(session, limit=3) == []
    after = memory.sessions.append_thoughts(session, numbers(1, 2, 3))
    assert after.thought_history == numbers(1, 2, 3)
    assert memory.sessions.append_thoughts(session, []).thought_history == numbers(1, 2, 3)
    memory.sessions.append_thought(session, {"n": 4})
    assert memory.sessions.thoughts(session) == numbers(1, 2, 3, 4)
    assert memory.sessions.thoughts(session, limit=2) == numbers(3, 4)
    assert memory.sessions.thoughts(session, limit=9) == numbers(1, 2, 3, 4)
    with pytest.raises(errors.InvalidInput, match="limit is 0"):
        memory.sessions.thoughts(session, limit=0)


def test_thoughts_that_were_never_set(
    memory: Memory, session: UUID, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("UPDATE agent_working_memory SET thought_history = NULL")
    assert memory.sessions.thoughts(session) == memory.sessions.thoughts(session, limit=1) == []
    assert memory.sessions.pop_thought(session) is None
    assert memory.sessions.append_thoughts(session, numbers(1)).thought_history == numbers(1)


def test_an_array_that_begins_elsewhere(
    memory: Memory, session: UUID, admin: psycopg.Connection[Any]
) -> None:
    written = '[5:6]={"{\\"n\\": 1}","{\\"n\\": 2}"}'
    admin.execute("UPDATE agent_working_memory SET thought_history = %s", [written])
    assert memory.sessions.thoughts(session, limit=1) == numbers(2)
    assert memory.sessions.pop_thought(session) == {"n": 2}
    assert memory.sessions.thoughts(session) == numbers(1)


def test_thoughts_are_taken_back_from_the_end(memory: Memory, session: UUID) -> None:
    memory.sessions.append_thoughts(session, numbers(1, 2))
    assert memory.sessions.pop_thought(session) == {"n": 2}
    assert memory.sessions.pop_thought(session) == {"n": 1}
    before = memory.sessions.get(session)
    assert memory.sessions.pop_thought(session) is None
    assert memory.sessions.get(session) == before, "there was nothing to write"


def test_no_two_get_the_same_thought(memory: Memory, session: UUID) -> None:
    memory.sessions.append_thoughts(session, numbers(*range(60)))
    with ThreadPoolExecutor(8) as pool:
        popped = list(pool.map(lambda _: memory.sessions.pop_thought(session), range(70)))
    got = [thought["n"] for thought in popped if thought is not None]
    assert sorted(got) == list(range(60))
    assert popped.count(None) == 10


def test_all_or_none_are_added(memory: Memory, session: UUID) -> None:
    for bad, said in (
        ([{"n": 1}, {"text": "a\0b"}], r"thoughts\[1\]"),
        ([{"n": 1}, None], r"thoughts\[1\] is a NoneType"),
        ({"n": 1}, "thoughts is a dict, not a list"),
    ):
        with pytest.raises(errors.InvalidInput, match=said):
            memory.sessions.append_thoughts(session, bad)  # type: ignore[arg-type]
    assert memory.sessions.thoughts(session) == []


def test_clearing_leaves_the_rest(memory: Memory) -> None:
    opened = memory.sessions.open(project_id="apollo", goal="plan", context={"a": 1})
    memory.sessions.append_thoughts(opened.session_id, [{"text": "platypus"}])
    assert memory.sessions.recall("platypus")
    cleared = memory.sessions.clear_thoughts(opened.session_id)
    assert (cleared.thought_history, cleared.current_goal) == ([], "plan")
    assert cleared.active_context == {"a": 1}
    assert not memory.sessions.recall("platypus")


def test_only_of_live_sessions_and_in_their_project(memory: Memory, session: UUID) -> None:
    memory.sessions.append_thoughts(session, numbers(1))
    zeus = memory.project("zeus")

    def attempts(sessions: Any) -> None:
        for name, values in (
            ("append_thoughts", [numbers(2)]),
            ("thoughts", []),
            ("pop_thought", []),
            ("clear_thoughts", []),
        ):
            with pytest.raises(errors.NotFound, match="there is no live session"):
                getattr(sessions, name)(session, *values)

    attempts(zeus.sessions)
    memory.sessions.close(session)
    attempts(memory.sessions)
    assert memory.sessions.get(session).thought_history == numbers(1)


def test_a_session_is_begun_gone_on_with_and_begun_anew(memory: Memory, make_episode: Any) -> None:
    key = uuid4()
    apollo = memory.project("apollo")
    begun = apollo.sessions.resume(
        key, user_id="ada", goal="plan", context={"a": 1}, thoughts=numbers(1), ttl=60
    )
    assert apollo.sessions.get(key) == begun
    episode = memory.episodes.record(**make_episode())
    apollo.sessions.relate_episode(key, episode.episode_id)
    gone_on = apollo.sessions.resume(
        str(key), user_id="bob", context={"b": 2}, thoughts=numbers(2, 3), ttl=timedelta(hours=2)
    )
    assert gone_on.thought_history == numbers(1, 2, 3)
    assert gone_on.active_context == {"a": 1, "b": 2}
    assert (gone_on.user_id, gone_on.current_goal) == ("ada", "plan")
    assert gone_on.related_episodes == [episode.episode_id]
    assert gone_on.created_at == begun.created_at
    assert gone_on.expires_at is not None
    assert begun.expires_at is not None
    assert gone_on.expires_at - begun.expires_at > timedelta(minutes=118)

    apollo.sessions.close(key)
    anew = apollo.sessions.resume(key, user_id="bob", thoughts=numbers(4))
    assert anew.is_active
    assert anew.thought_history == numbers(4)
    assert (anew.user_id, anew.current_goal, anew.active_context) == ("bob", None, None)
    assert anew.related_episodes == []
    assert anew.created_at is not None
    assert begun.created_at is not None
    assert anew.created_at > begun.created_at

    apollo.sessions.extend(key, 0.02)
    time.sleep(0.05)
    assert apollo.sessions.resume(key, thoughts=numbers(5)).thought_history == numbers(5)


def test_a_session_of_another_project_is_not_resumed(memory: Memory) -> None:
    key = uuid4()
    before = memory.sessions.resume(key, project_id="apollo", thoughts=numbers(1))
    for _ in range(2):
        with pytest.raises(errors.Conflict, match="of another project than 'zeus'"):
            memory.sessions.resume(key, project_id="zeus", thoughts=numbers(2))
        assert memory.sessions.get(key).thought_history == before.thought_history
        memory.sessions.close(key)
    with pytest.raises(errors.InvalidInput, match="project_id is missing"):
        memory.sessions.resume(key)


@pytest.mark.parametrize("ended", [False, True], ids=["new", "ended"])
def test_of_many_who_resume_at_once_nothing_is_lost(memory: Memory, ended: bool) -> None:
    key = uuid4()
    if ended:
        memory.sessions.open(project_id="apollo", session_id=key)
        memory.sessions.append_thoughts(key, numbers(-1))
        memory.sessions.close(key)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: memory.sessions.resume(key, project_id="apollo", thoughts=numbers(n)),
                range(40),
            )
        )
    found = memory.sessions.thoughts(key)
    assert sorted(thought["n"] for thought in found) == list(range(40))


def test_a_resumed_session_rolls_back_with_its_caller(
    memory: Memory, admin: psycopg.Connection[Any]
) -> None:
    key = uuid4()
    with admin.transaction(force_rollback=True):
        memory.sessions.resume(key, project_id="apollo", thoughts=numbers(1), connection=admin)
        assert memory.sessions.pop_thought(key, connection=admin) == {"n": 1}
    with pytest.raises(errors.NotFound):
        memory.sessions.get(key)
