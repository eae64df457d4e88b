"""What the routers share: the embedding of their application, and how they describe failures."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, cast

from fastapi import Depends, Request
from pydantic import BaseModel

from pgrecall.serving.schemas import OpenAIError, ProblemResponse
from pgrecall.serving.work import Embedding

_FAULTS = {
    400: "The body is no JSON.",
    401: "No key, or none that is valid.",
    403: "The key lacks the scope.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body's type is not application/json.",
    421: "This server has another name.",
    422: "A field is wrong, there are too many texts, or one gets no vector.",
    500: "The embedder fails.",
    503: "Too much to do, or the embedder is unavailable: again after Retry-After.",
    504: "The texts were not embedded in time.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}

Responses: TypeAlias = dict[int | str, dict[str, Any]]


def _embedding(request: Request) -> Embedding:
    return cast("Embedding", request.app.state.embedding)


Service: TypeAlias = Annotated[Embedding, Depends(_embedding)]
"""A parameter of an endpoint that embeds."""


def problems() -> Responses:
    """Return the failures of an endpoint of ours, for the OpenAPI document."""
    return _described(ProblemResponse, "application/problem+json", _FAULTS)


REFUSED = (401, 403, 421, 503)
"""Failures of requests that are not let in."""


def openai_errors(*statuses: int) -> Responses:
    """Return the failures of an endpoint of OpenAI's, for the OpenAPI document.

    Args:
        *statuses: Which; all of an endpoint that embeds, unless given.
    """
    faults = {
        **_FAULTS,
        400: "The body is no JSON, or a field is wrong.",
        404: "Another model than the one that is served.",
        422: "There are too many texts, or one gets no vector.",
    }
    named = {status: text for status, text in faults.items() if status in statuses}
    return _described(OpenAIError, "application/json", named or faults)


def _described(body: type[BaseModel], media_type: str, faults: dict[int, str]) -> Responses:
    # Inline, as FastAPI would describe a model as application/json.
    schema = body.model_json_schema()
    for name, part in schema.pop("$defs", {}).items():
        schema["properties"] = {
            key: part if value.get("$ref", "").endswith(f"/{name}") else value
            for key, value in schema["properties"].items()
        }
    return {
        status: {
            "description": text,
            "content": {media_type: {"schema": schema}},
            **({"headers": _RETRY_AFTER} if status == 503 else {}),
        }
        for status, text in sorted(faults.items())
    }
