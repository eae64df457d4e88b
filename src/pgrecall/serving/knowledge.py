"""``/api/v1/knowledge``: what was learned, the evidence for and against it, how it fared."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pgvector import Vector

from pgrecall.core.text import render_knowledge
from pgrecall.models import Knowledge
from pgrecall.serving import answers, asked, examples, reach
from pgrecall.serving.access import current
from pgrecall.serving.describing import PREFIX, endpoint
from pgrecall.serving.kinds import Id, given
from pgrecall.serving.served import Connection, IdempotencyKey, Served, Service, answer, tagged

router = APIRouter(prefix=f"{PREFIX}/knowledge", tags=["knowledge"])

_ACTIVE = {"true": True, "false": False, "all": None}


@router.post(
    "",
    response_model=Knowledge,
    **endpoint(
        "write", "knowledge_add", examples.KNOWLEDGE, status=201, also=(409, 507), body=True
    ),
)
async def add(
    body: asked.AddKnowledge, request: Request, service: Service, key: IdempotencyKey = None
) -> Response:
    """Store a piece of knowledge with its evidence."""
    current().require_project(body.project_id)
    evidence = [*body.supporting_episodes, *body.contradicting_episodes]
    await reach.require_episodes(service.store, evidence)
    values = given(body)

    async def ready() -> None:
        if body.embedding is None and _embeds(service, body.embed):
            values["embedding"] = await _embedded(service, body)

    async def work(connection: Connection | None) -> Knowledge:
        return await service.memory.knowledge.add(**values, connection=connection)

    return await service.once(request, key, work, status=201, ready=ready)


def _embeds(service: Served, embed: str | None) -> bool:
    return service.memory.embedder.available and (embed or service.settings.embed) == "now"


async def _embedded(service: Served, body: asked.AddKnowledge) -> Vector:
    tokens = service.memory.embedder.max_tokens
    text = render_knowledge(body.description, body.content, max_tokens=tokens)
    return (await service.memory.embed(text, mode="document"))[0]


@router.get(
    "",
    response_model=answers.KnowledgePage,
    **endpoint("read", "knowledge_list", examples.KNOWLEDGE_PAGE),
)
async def list_knowledge(
    query: Annotated[asked.KnowledgeQuery, Query()], service: Service
) -> Response:
    """Return knowledge, newest first, a page at a time."""
    page = await service.memory.knowledge.list(
        project_id=reach.one_project(query.project_id),
        knowledge_type=query.knowledge_type,
        active=_ACTIVE[query.active],
        min_confidence=query.min_confidence,
        limit=query.limit,
        cursor=query.cursor,
    )
    return answer(page)


@router.post(
    "/recall",
    response_model=answers.RecalledStrategies,
    **endpoint("read", "knowledge_recall", examples.RECALLED_KNOWLEDGE, body=True),
)
async def recall(body: asked.RecallKnowledge, service: Service) -> Response:
    """Return the knowledge that fits a situation best, best first."""
    values = given(body, "active")
    values["project_id"] = reach.one_project(body.project_id)
    hits = await service.memory.knowledge.recall(**values, active=body.active)
    return answer({"hits": [*hits], "account": hits.account})


@router.get(
    "/{knowledge_id:uuid}",
    response_model=Knowledge,
    **endpoint("read", "knowledge_get", examples.KNOWLEDGE, also=(304, 404)),
)
async def get(
    knowledge_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
) -> Response:
    """Return one piece of knowledge, with an ETag."""
    return tagged(request, await reach.known(service.memory, knowledge_id, query.project_id))


@router.post(
    "/{knowledge_id:uuid}/applications",
    response_model=Knowledge,
    **endpoint(
        "write", "knowledge_record_application", examples.KNOWLEDGE, also=(404, 507), body=True
    ),
)
async def record_application(
    knowledge_id: Id,
    query: Annotated[asked.InProject, Query()],
    body: asked.RecordApplication,
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Count one application, and whether it succeeded."""
    project_id = await reach.knowledge_to_change(service.memory, knowledge_id, query.project_id)
    if body.episode_id is not None:
        await reach.require_episodes(service.store, [body.episode_id])

    async def work(connection: Connection | None) -> Knowledge:
        return await service.memory.knowledge.record_application(
            knowledge_id,
            success=body.success,
            episode_id=body.episode_id,
            project_id=project_id,
            connection=connection,
        )

    return await service.once(request, key, work)


@router.post(
    "/{knowledge_id:uuid}/retire",
    response_model=Knowledge,
    **endpoint("write", "knowledge_retire", examples.KNOWLEDGE, also=(404,)),
)
async def retire(
    knowledge_id: Id,
    query: Annotated[asked.InProject, Query()],
    request: Request,
    service: Service,
    key: IdempotencyKey = None,
) -> Response:
    """Take a piece of knowledge out of use; it stays in the ledger."""
    project_id = await reach.knowledge_to_change(service.memory, knowledge_id, query.project_id)

    async def work(connection: Connection | None) -> Knowledge:
        return await service.memory.knowledge.retire(
            knowledge_id, project_id=project_id, connection=connection
        )

    return await service.once(request, key, work)


@router.delete(
    "/{knowledge_id:uuid}", **endpoint("write", "knowledge_delete", status=204, also=(404,))
)
async def delete(
    knowledge_id: Id, query: Annotated[asked.InProject, Query()], service: Service
) -> Response:
    """Delete a piece of knowledge and its evidence; the episodes stay."""
    project_id = await reach.knowledge_to_change(service.memory, knowledge_id, query.project_id)
    await service.memory.knowledge.delete(knowledge_id, project_id=project_id)
    return Response(status_code=204)
