"""Whether the server lives and is ready, what it serves, and its metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pgrecall import __version__
from pgrecall._async.runtime import call_blocking
from pgrecall.errors import DatabaseError, PgrecallError
from pgrecall.migrations import HEAD
from pgrecall.models import Staleness
from pgrecall.serving import answers, examples
from pgrecall.serving.access import current
from pgrecall.serving.describing import PREFIX, Described, endpoint
from pgrecall.serving.faults import problem_of
from pgrecall.serving.problems import Problem
from pgrecall.serving.served import Service, answer
from pgrecall.serving.work import public_name

alive = APIRouter(tags=["operation"])
"""Of every server."""

router = APIRouter(tags=["operation"])
"""Of those that have a memory."""

_OPEN: dict[str, Any] = {"security": []}


@alive.get(
    "/healthz",
    response_model=answers.Alive,
    operation_id="healthz",
    responses={200: {"content": {"application/json": {"example": {"status": "ok"}}}}},
    openapi_extra=_OPEN,
)
async def healthz() -> Response:
    """Tell that the process lives; nothing else is asked."""
    return answer({"status": "ok"})


@alive.get(
    "/readyz",
    response_model=answers.Alive,
    operation_id="readyz",
    responses={
        200: {"content": {"application/json": {"example": {"status": "ok"}}}},
        503: {
            "description": "The database does not answer, or its schema is another.",
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        },
    },
    openapi_extra=_OPEN,
)
async def readyz(request: Request) -> Response:
    """Tell whether requests can be answered: the database does, and its schema fits."""
    served = request.app.state.served
    try:
        if served is None or await served.store.is_ready():
            return answer({"status": "ok"})
    except DatabaseError as error:
        raise problem_of(error) from error
    except PgrecallError as error:
        raise _wrong_schema() from error
    raise _wrong_schema()


def _wrong_schema() -> Problem:
    detail = "the database's schema is not the one that this server needs"
    return Problem(503, "schema", detail, headers={"Retry-After": "5"})


@router.get(
    "/metrics",
    **endpoint(
        "read",
        "prometheus_metrics",
        Described(
            {
                "description": "In Prometheus's text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        ),
        response_class=Response,
    ),
)
async def prometheus() -> Response:
    """Return this process's metrics for Prometheus; keys for some projects don't see them."""
    current().require_project(None)
    return Response(await call_blocking(generate_latest), media_type=CONTENT_TYPE_LATEST)


@router.get(
    f"{PREFIX}/memory",
    response_model=answers.MemoryInfo,
    **endpoint("read", "memory_describe", examples.MEMORY),
)
async def describe(service: Service) -> Response:
    """Tell what is served, and what the caller may do there."""
    access = current()
    return answer(
        {
            "version": __version__,
            "revision": HEAD,
            "dimensions": service.memory.dimensions,
            "model": public_name(service.memory.embedder.identity),
            "access": {
                "name": access.name,
                "scopes": sorted(access.scopes),
                "projects": None if access.projects is None else sorted(access.projects),
            },
        }
    )


@router.get(
    f"{PREFIX}/staleness",
    response_model=Staleness,
    **endpoint("read", "memory_staleness", examples.STALENESS),
)
async def staleness(service: Service) -> Response:
    """Say how far what is read here is behind: nothing on a primary, a little on a standby."""
    return answer(await service.memory.staleness())
