"""``/api/v1/episodes``: decisions, how they turned out, and the similar ones of the past."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from pgrecall.models import Episode
from pgrecall.models import NewEpisode as Prepared
from pgrecall.serving import answers, asked, examples, reach
from pgrecall.serving.access import current
from pgrecall.serving.describing import PREFIX, endpoint
from pgrecall.serving.kinds import Id, given
from pgrecall.serving.served import Connection, IdempotencyKey, Served, Service, answer, tagged

router = APIRouter(prefix=f"{PREFIX}/episodes", tags=["episodes"])


@router.post(
    "",
    response_model=Episode,
    **endpoint(
        "write", "episodes_record", examples.EPISODE, status=201, also=(409, 507), body=True
    ),
)
async def record(
    body: asked.RecordEpisode, request: Request, service: Service, key: IdempotencyKey = None
) -> Response:
    """Store one decision; with an `external_id` that stands already, the stored one comes back."""
    current().require_project(body.project_id)
    values = given(body, "embed", "burst")
    how: dict[str, Any] = {"embed": body.embed, "burst": body.burst}
    prepared: list[Prepared] = []

    async def ready() -> None:
        if _embeds(service, body.embed):
            prepared.append(await service.memory.episodes.prepare(**values))

    async def work(connection: Connection | None) -> Episode:
        if prepared:
            return await service.memory.episodes.record(
                prepared[0], **_ready(how), connection=connection
            )
        return await service.memory.episodes.record(**values, **how, connection=connection)

    return await service.once(request, key, work, status=201, ready=ready)


@router.post(
    "/bulk",
    response_model=answers.RecordedEpisodes,
    **endpoint("write", "episodes_record_many", examples.RECORDED, also=(409, 507), body=True),
)
async def record_many(
    body: asked.RecordEpisodes, request: Request, service: Service, key: IdempotencyKey = None
) -> Response:
    """Store many decisions in one statement: all of them, or none."""
    access = current()
    for project_id in {item.project_id for item in body.episodes}:
        access.require_project(project_id)
    episodes: list[Any] = [given(item) for item in body.episodes]
    how: dict[str, Any] = {"embed": body.embed, "burst": body.burst}

    async def ready() -> None:
        if _embeds(service, body.embed):
            episodes[:] = await service.memory.episodes.prepare_many(episodes)
            how.update(_ready(how))

    async def work(connection: Connection | None) -> dict[str, Any]:
        recorded = await service.memory.episodes.record_many(episodes, **how, connection=connection)
        return {
            "created": recorded.created,
            "existing": recorded.existing,
            "episode_ids": [episode.episode_id for episode in recorded.episodes],
        }

    return await service.once(request, key, work, ready=ready)


def _embeds(service: Served, embed: str | None) -> bool:
    """Whether what is recorded is embedded at once; then that comes before the transaction."""
    return service.memory.embedder.available and (embed or service.settings.embed) == "now"


def _ready(how: dict[str, Any]) -> dict[str, Any]:
    # What has no vector by now holds no word, and would not get one later either.
    return {**how, "embed": "later"}


@router.get(
    "",
    response_model=answers.EpisodePage,
    **endpoint("read", "episodes_list", examples.EPISODES),
)
async def list_episodes(
    query: Annotated[asked.EpisodePageQuery, Query()], service: Service
) -> Response:
    """Return episodes, newest first, a page at a time."""
    filters = reach.episode_filters(given(query, "limit", "cursor"))
    return answer(
        await service.memory.episodes.list(limit=query.limit, cursor=query.cursor, **filters)
    )


@router.get(
    "/count", response_model=answers.Count, **endpoint("read", "episodes_count", {"count": 12})
)
async def count(query: Annotated[asked.EpisodeQuery, Query()], service: Service) -> Response:
    """Return how many episodes match."""
    filters = reach.episode_filters(given(query))
    return answer({"count": await service.memory.episodes.count(**filters)})


@router.post(
    "/recall",
    response_model=answers.RecalledEpisodes,
    **endpoint("read", "episodes_recall", examples.RECALLED, body=True),
)
async def recall(body: asked.RecallEpisodes, service: Service) -> Response:
    """Return the past decisions that fit best, with their outcomes, best first."""
    filters = reach.episode_filters(given(body))
    hits = await service.memory.episodes.recall(**filters)
    return answer({"hits": [*hits], "account": hits.account})


@router.post(
    "/embeddings",
    response_model=answers.Vectors,
    **endpoint(
        "read",
        "episodes_embeddings",
        {"embeddings": {examples.EPISODE_ID: [0.0421, -0.0173, 0.0856]}},
        body=True,
    ),
)
async def embeddings(body: asked.EpisodeIds, service: Service) -> Response:
    """Return the stored vectors of those of the episodes that have one."""
    own = await reach.own_episodes(service.store, body.episode_ids)
    found = await service.memory.episodes.embeddings(own)
    return answer({"embeddings": {str(name): vector for name, vector in found.items()}})


@router.post(
    "/delete",
    response_model=answers.Deleted,
    **endpoint("write", "episodes_delete_many", {"deleted": 1}, also=(409,), body=True),
)
async def delete_many(
    body: asked.EpisodeIds, request: Request, service: Service, key: IdempotencyKey = None
) -> Response:
    """Delete episodes, all or none; those that there are none of don't count."""
    own = await reach.own_episodes(service.store, body.episode_ids)

    async def work(connection: Connection | None) -> dict[str, int]:
        return {"deleted": await service.memory.episodes.delete(*own, connection=connection)}

    return await service.once(request, key, work)


@router.get(
    "/{episode_id:uuid}",
    response_model=Episode,
    **endpoint("read", "episodes_get", examples.EPISODE, also=(304, 404)),
)
async def get(
    episode_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
) -> Response:
    """Return one episode, with an ETag."""
    project_id = await _project(service, episode_id, query.project_id)
    return tagged(request, await service.memory.episodes.get(episode_id, project_id=project_id))


@router.post(
    "/{episode_id:uuid}/outcome",
    response_model=Episode,
    **endpoint("write", "episodes_record_outcome", examples.EPISODE, also=(404, 507), body=True),
)
async def record_outcome(
    episode_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.RecordOutcome,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Store how a decision turned out, and return the episode with it."""
    project_id = await _project(service, episode_id, query.project_id)

    async def work(connection: Connection | None) -> Episode:
        return await service.memory.episodes.record_outcome(
            episode_id, body.outcome, body.quality, project_id=project_id, connection=connection
        )

    return await service.once(request, key, work)


@router.delete(
    "/{episode_id:uuid}", **endpoint("write", "episodes_delete", status=204, also=(404, 409))
)
async def delete(
    episode_id: Id, query: Annotated[asked.InProject, Query()], service: Service
) -> Response:
    """Delete one episode."""
    project_id = await _project(service, episode_id, query.project_id)
    if not await service.memory.episodes.delete(episode_id, project_id=project_id):
        await service.memory.episodes.get(episode_id, project_id=project_id)  # says that it isn't
    return Response(status_code=204)


async def _project(service: Served, episode_id: Id, project_id: str | None) -> str | None:
    return await reach.of_row(
        project_id,
        lambda: service.memory.episodes.get(episode_id),
        f"there is no episode {episode_id}",
    )
