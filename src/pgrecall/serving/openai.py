"""``POST /v1/embeddings`` and ``GET /v1/models``, as OpenAI's client expects them."""

from __future__ import annotations

import struct
import time
from base64 import b64encode

import orjson
from fastapi import APIRouter, Response
from pgvector import Vector

from pgrecall.serving.answering import REFUSED, Service, openai_errors
from pgrecall.serving.describing import needs
from pgrecall.serving.limits import Wanted
from pgrecall.serving.problems import Problem, shown
from pgrecall.serving.schemas import OpenAIModel, OpenAIModels, OpenAIRequest, OpenAIResponse
from pgrecall.serving.work import Embedded

router = APIRouter(prefix="/v1", tags=["OpenAI"], dependencies=[needs("read")])

_STARTED = int(time.time())


@router.post(
    "/embeddings",
    response_model=OpenAIResponse,
    responses=openai_errors(),
    operation_id="openai_embeddings",
)
async def create_embeddings(asked: OpenAIRequest, service: Service) -> Response:
    """Embed a text or several, as OpenAI does."""
    model = asked.model or ""
    if model not in service.names:
        detail = f"the model {shown(model)} does not exist: {service.model} is served"
        raise Problem(404, "model-not-found", detail, name="model")
    show = _base64 if asked.encoding_format == "base64" else Vector.to_list

    def render(embedded: Embedded) -> bytes:
        return orjson.dumps(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": show(vector)}
                    for index, vector in enumerate(embedded.vectors)
                ],
                "model": service.model,
                # The protocol wants them; an embedder tells of no tokens.
                "usage": {"prompt_tokens": 0, "total_tokens": 0},
            }
        )

    single = isinstance(asked.input, str)
    wanted = Wanted(
        texts=[asked.input] if isinstance(asked.input, str) else asked.input,
        field="input",
        single=single,
        dimensions=asked.dimensions,
    )
    return Response(await service.embed(wanted, render), media_type="application/json")


def _base64(vector: Vector) -> str:
    return b64encode(struct.pack(f"<{vector.dimensions()}f", *vector.to_list())).decode()


@router.get("/models", operation_id="openai_models", responses=openai_errors(*REFUSED))
async def list_models(service: Service) -> OpenAIModels:
    """Tell which model is served."""
    model = OpenAIModel(id=service.model, object="model", created=_STARTED, owned_by="pgrecall")
    return OpenAIModels(object="list", data=[model])
