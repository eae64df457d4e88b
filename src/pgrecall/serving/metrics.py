"""``/api/v1/metrics``: what the memory's operations cost, as rows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from pgrecall.models import Totals
from pgrecall.serving import answers, asked, examples, reach
from pgrecall.serving.describing import PREFIX, endpoint
from pgrecall.serving.kinds import given
from pgrecall.serving.served import Connection, IdempotencyKey, Service, answer

router = APIRouter(prefix=f"{PREFIX}/metrics", tags=["metrics"])


@router.get(
    "", response_model=answers.MetricPage, **endpoint("read", "metrics_list", examples.METRICS)
)
async def list_metrics(
    query: Annotated[asked.MetricPageQuery, Query()], service: Service
) -> Response:
    """Return stored measurements, newest first, a page at a time."""
    values = {**given(query), "project_id": reach.one_project(query.project_id)}
    return answer(await service.memory.metrics.list(**values))


@router.get(
    "/summary",
    response_model=answers.Summary,
    **endpoint("read", "metrics_summary", examples.SUMMARY),
)
async def summary(query: Annotated[asked.MetricQuery, Query()], service: Service) -> Response:
    """Return counts and latencies (milliseconds) of each kind of operation."""
    values = {**given(query), "project_id": reach.one_project(query.project_id)}
    found = await service.memory.metrics.summary(**values)
    return answer({"operations": [*found.values()]})


@router.get("/totals", response_model=Totals, **endpoint("read", "metrics_totals", examples.TOTALS))
async def totals(query: Annotated[asked.ProjectQuery, Query()], service: Service) -> Response:
    """Return how much is remembered, of one project or of all. Every episode is counted."""
    project_id = reach.one_project(query.project_id)
    return answer(await service.memory.metrics.totals(project_id=project_id))


@router.post(
    "/prune",
    response_model=answers.Deleted,
    **endpoint("admin", "metrics_prune", {"deleted": 120}, body=True),
)
async def prune(
    body: asked.PruneMetrics, request: Request, service: Service, key: IdempotencyKey = None
) -> Response:
    """Delete older measurements."""
    project_id = reach.one_project(body.project_id)

    async def work(connection: Connection | None) -> dict[str, int]:
        deleted = await service.memory.metrics.prune(
            keep=body.keep, project_id=project_id, connection=connection
        )
        return {"deleted": deleted}

    return await service.once(request, key, work)
