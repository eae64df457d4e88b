"""``/api/v1/sessions``: what agents hold in mind now, until it expires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from pgrecall.models import Session
from pgrecall.serving import answers, asked, examples, reach
from pgrecall.serving.access import current
from pgrecall.serving.describing import PREFIX, endpoint
from pgrecall.serving.kinds import Id, given
from pgrecall.serving.problems import Problem
from pgrecall.serving.served import (
    Connection,
    IdempotencyKey,
    Served,
    Service,
    answer,
    encoded,
    etag,
    matches,
    tagged,
)

router = APIRouter(prefix=f"{PREFIX}/sessions", tags=["sessions"])

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="ETag of the session as the caller knows it; if it has changed, nothing is "
        "done.",
        max_length=500,
    ),
]
Change = Callable[[str | None, Connection | None], Awaitable[Any]]


@router.post(
    "",
    response_model=Session,
    **endpoint("write", "sessions_open", examples.SESSION, status=201, also=(409, 507), body=True),
)
async def open_session(
    body: asked.OpenSession, request: Request, service: Service, key: IdempotencyKey = None
) -> Response:
    """Begin a session."""
    current().require_project(body.project_id)

    async def work(connection: Connection | None) -> Session:
        return await service.memory.sessions.open(**given(body), connection=connection)

    return await service.once(request, key, work, status=201)


@router.get(
    "",
    response_model=answers.SessionPage,
    **endpoint("read", "sessions_list", examples.SESSIONS),
)
async def list_sessions(
    query: Annotated[asked.SessionQuery, Query()], service: Service
) -> Response:
    """Return sessions, the last updated first, a page at a time."""
    values = {**given(query), "project_id": reach.one_project(query.project_id)}
    return answer(await service.memory.sessions.list(**values))


@router.post(
    "/recall",
    response_model=answers.RecalledThoughts,
    **endpoint("read", "sessions_recall", examples.THOUGHTS, body=True),
)
async def recall(body: asked.RecallThoughts, service: Service) -> Response:
    """Return the thoughts of sessions that fit the words of a query best, best first."""
    values = {**given(body), "project_id": reach.one_project(body.project_id)}
    return answer({"hits": [*await service.memory.sessions.recall(**values)]})


@router.post(
    "/expire",
    response_model=answers.Expired,
    **endpoint("write", "sessions_expire", {"expired": 2}),
)
async def expire(service: Service) -> Response:
    """End every session whose time is up, in all projects of the caller."""
    projects = current().projects
    if projects is None:
        return answer({"expired": await service.memory.sessions.expire()})
    ended = [await service.memory.project(name).sessions.expire() for name in sorted(projects)]
    return answer({"expired": sum(ended)})


@router.get(
    "/{session_id:uuid}",
    response_model=Session,
    **endpoint("read", "sessions_get", examples.SESSION, also=(304, 404)),
)
async def get(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
) -> Response:
    """Return one session, live or not, with an ETag."""
    project_id = await _project(service, session_id, query.project_id)
    return tagged(request, await service.memory.sessions.get(session_id, project_id=project_id))


@router.post(
    "/{session_id:uuid}/resume",
    response_model=Session,
    **endpoint("write", "sessions_resume", examples.SESSION, also=(409, 507), body=True),
)
async def resume(
    session_id: Id,
    body: asked.ResumeSession,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Go on with a session, or begin it under this identifier if it is new or has ended."""
    current().require_project(body.project_id)

    async def work(connection: Connection | None) -> Session:
        return await service.memory.sessions.resume(
            session_id, **given(body), connection=connection
        )

    return await service.once(request, key, work)


@router.patch(
    "/{session_id:uuid}/context",
    response_model=Session,
    **endpoint(
        "write", "sessions_update_context", examples.SESSION, also=(404, 412, 507), body=True
    ),
)
async def update_context(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.UpdateContext,
    request: Request,
    service: Service,
    if_match: IfMatch = None,
) -> Response:
    """Merge keys into the context: given ones replace those of the same name, at the top level."""
    project_id = await _project(service, session_id, query.project_id)
    sessions = service.memory.sessions

    async def work(connection: Connection | None) -> Session:
        if if_match is not None and connection is not None:
            await service.store.lock_session(session_id, connection)
            now = await sessions.get(session_id, project_id=project_id, connection=connection)
            if not matches(if_match, etag(encoded(now))):
                detail = "the session has changed since, and nothing was done: get it again"
                raise Problem(412, "changed", detail)
        return await sessions.update_context(
            session_id, body.context, project_id=project_id, connection=connection
        )

    return await service.once(request, None, work, atomic=if_match is not None)


@router.post(
    "/{session_id:uuid}/thoughts",
    response_model=Session,
    **endpoint("write", "sessions_append_thought", examples.SESSION, also=(404, 507), body=True),
)
async def append_thought(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.AppendThought,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Add a thought at the end of the session's history."""

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.append_thought(
            session_id, body.thought, project_id=project_id, connection=connection
        )

    return await _changed(service, request, key, (session_id, query.project_id), work)


@router.post(
    "/{session_id:uuid}/thoughts/bulk",
    response_model=Session,
    **endpoint("write", "sessions_append_thoughts", examples.SESSION, also=(404, 507), body=True),
)
async def append_thoughts(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.AppendThoughts,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Add thoughts at the end of the session's history: all of them, or none."""

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.append_thoughts(
            session_id, body.thoughts, project_id=project_id, connection=connection
        )

    return await _changed(service, request, key, (session_id, query.project_id), work)


@router.get(
    "/{session_id:uuid}/thoughts",
    response_model=answers.Thoughts,
    **endpoint("read", "sessions_thoughts", {"thoughts": [examples.THOUGHT]}, also=(404,)),
)
async def thoughts(
    session_id: Id, query: Annotated[asked.ThoughtQuery, Query()], service: Service
) -> Response:
    """Return the thoughts of a live session, or the last of them, oldest first."""
    project_id = await _project(service, session_id, query.project_id)
    found = await service.memory.sessions.thoughts(
        session_id, limit=query.limit, project_id=project_id
    )
    return answer({"thoughts": [*found]})


@router.post(
    "/{session_id:uuid}/thoughts/pop",
    response_model=answers.PoppedThought,
    **endpoint(
        "write", "sessions_pop_thought", {"thought": examples.THOUGHT}, also=(404, 409, 507)
    ),
)
async def pop_thought(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Remove the last thought of a session and return it."""

    async def work(project_id: str | None, connection: Connection | None) -> dict[str, Any]:
        popped = await service.memory.sessions.pop_thought(
            session_id, project_id=project_id, connection=connection
        )
        return {"thought": popped}

    return await _changed(service, request, key, (session_id, query.project_id), work)


@router.delete(
    "/{session_id:uuid}/thoughts",
    response_model=Session,
    **endpoint(
        "write", "sessions_clear_thoughts", {**examples.SESSION, "thought_history": []},
        also=(404, 507),
    ),
)  # fmt: skip
async def clear_thoughts(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
) -> Response:
    """Remove all thoughts of a session; the rest of it stays."""

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.clear_thoughts(
            session_id, project_id=project_id, connection=connection
        )

    return await _changed(service, request, None, (session_id, query.project_id), work)


@router.put(
    "/{session_id:uuid}/goal",
    response_model=Session,
    **endpoint("write", "sessions_set_goal", examples.SESSION, also=(404, 507), body=True),
)
async def set_goal(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.SetGoal,
    request: Request,
    service: Service,
) -> Response:
    """Replace the session's goal."""

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.set_goal(
            session_id, body.goal, project_id=project_id, connection=connection
        )

    return await _changed(service, request, None, (session_id, query.project_id), work)


@router.post(
    "/{session_id:uuid}/episodes",
    response_model=Session,
    **endpoint("write", "sessions_relate_episode", examples.SESSION, also=(404, 507), body=True),
)
async def relate_episode(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.RelateEpisode,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Note an episode as belonging to the session, once."""
    await reach.require_episodes(service.store, [body.episode_id])

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.relate_episode(
            session_id, body.episode_id, project_id=project_id, connection=connection
        )

    return await _changed(service, request, key, (session_id, query.project_id), work)


@router.post(
    "/{session_id:uuid}/extend",
    response_model=Session,
    **endpoint("write", "sessions_extend", examples.SESSION, also=(404, 507), body=True),
)
async def extend(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.ExtendSession,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Let the session live for `ttl` seconds from now on."""

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.extend(
            session_id, body.ttl, project_id=project_id, connection=connection
        )

    return await _changed(service, request, key, (session_id, query.project_id), work)


@router.post(
    "/{session_id:uuid}/close",
    response_model=Session,
    **endpoint("write", "sessions_close", examples.SESSION, also=(404,)),
)
async def close(
    session_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """End a session; closing one that has ended changes nothing."""

    async def work(project_id: str | None, connection: Connection | None) -> Session:
        return await service.memory.sessions.close(
            session_id, project_id=project_id, connection=connection
        )

    return await _changed(service, request, key, (session_id, query.project_id), work)


@router.delete(
    "/{session_id:uuid}", **endpoint("write", "sessions_delete", status=204, also=(404,))
)
async def delete(
    session_id: Id, query: Annotated[asked.InProject, Query()], service: Service
) -> Response:
    """Delete a session."""
    project_id = await _project(service, session_id, query.project_id)
    await service.memory.sessions.delete(session_id, project_id=project_id)
    return Response(status_code=204)


async def _changed(
    service: Served,
    request: Request,
    key: str | None,
    which: tuple[Id, str | None],
    change: Change,
) -> Response:
    """Change a session that the caller reaches, once for each key."""
    project_id = await _project(service, *which)

    async def work(connection: Connection | None) -> Any:
        return await change(project_id, connection)

    return await service.once(request, key, work)


async def _project(service: Served, session_id: Id, project_id: str | None) -> str | None:
    return await reach.of_row(
        project_id,
        lambda: service.memory.sessions.get(session_id),
        f"there is no session {session_id}",
    )
