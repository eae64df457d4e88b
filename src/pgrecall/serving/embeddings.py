"""``POST /embed``, ``POST /embed/batch`` and ``GET /health``."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from pgrecall.serving.answering import Service, problems
from pgrecall.serving.describing import needs
from pgrecall.serving.limits import Wanted
from pgrecall.serving.schemas import (
    BatchRequest,
    BatchResponse,
    EmbedRequest,
    EmbedResponse,
    HealthResponse,
)
from pgrecall.serving.work import Embedded

router = APIRouter(tags=["embeddings"], dependencies=[needs("read")])


@router.post(
    "/embed", response_model=EmbedResponse, responses=problems(), operation_id="embeddings_embed"
)
async def embed(asked: EmbedRequest, service: Service) -> Response:
    """Embed a text."""

    def render(embedded: Embedded) -> bytes:
        return orjson.dumps(
            {
                "embedding": embedded.vectors[0].to_list(),
                "dimensions": embedded.dimensions,
                "model": service.model,
                "generation_time_ms": embedded.milliseconds,
            }
        )

    wanted = Wanted(texts=[asked.text], field="text", single=True, mode=asked.mode)
    return Response(await service.embed(wanted, render), media_type="application/json")


@router.post(
    "/embed/batch",
    response_model=BatchResponse,
    responses=problems(),
    operation_id="embeddings_embed_batch",
)
async def embed_batch(asked: BatchRequest, service: Service) -> Response:
    """Embed several texts; all of them, or none."""

    def render(embedded: Embedded) -> bytes:
        return orjson.dumps(
            {
                "embeddings": [vector.to_list() for vector in embedded.vectors],
                "count": len(embedded.vectors),
                "dimensions": embedded.dimensions,
                "model": service.model,
                "total_time_ms": embedded.milliseconds,
            }
        )

    wanted = Wanted(texts=asked.texts, field="texts", mode=asked.mode)
    return Response(await service.embed(wanted, render), media_type="application/json")


@router.get(
    "/health",
    response_model=HealthResponse,
    responses={503: {"model": HealthResponse, "description": "Texts cannot be embedded now."}},
    operation_id="embeddings_health",
    openapi_extra={"security": []},
)
async def health(service: Service) -> Response:
    """Tell whether texts can be embedded now, as seen within the last seconds."""
    found = await service.health()
    body = HealthResponse(
        status="ok" if found.fault is None else "unavailable",
        model=service.model,
        dimensions=found.dimensions,
        reason=found.fault,
    )
    return JSONResponse(body.model_dump(), 200 if found.fault is None else 503)
