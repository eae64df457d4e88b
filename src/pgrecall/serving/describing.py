"""How endpoints of the memory are declared: their scope, their failures and an example answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from pgrecall.serving.access import Scope, current
from pgrecall.serving.schemas import ProblemResponse

PREFIX = "/api/v1"
"""Where the memory is; what changes its answers so that clients would break gets another."""

_FAULTS = {
    304: "The caller has this already.",
    400: "The body is no JSON.",
    401: "No key, or none that is valid.",
    403: "The key lacks the scope, or is not for this project.",
    404: "There is no such row that the caller reaches.",
    408: "The body did not come in time.",
    409: "The identifier stands for something else, or knowledge rests on the row.",
    412: "The row has changed.",
    413: "The body is too large.",
    415: "The body's type is another.",
    421: "This server has another name.",
    422: "A value is wrong, and nothing was changed.",
    500: "The server or the embedder fails; the log says why.",
    503: "Not now: again after Retry-After seconds.",
    504: "It took too long.",
    507: "The database is out of space.",
}
_ALWAYS = (401, 403, 421, 422, 500, 503, 504)
_WITH_BODY = (400, 408, 413, 415)
_HEADERS: dict[int, dict[str, Any]] = {
    304: {"ETag": {"description": "Of the row.", "schema": {"type": "string"}}},
    401: {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
}
_SECURITY = "key"


@dataclass(frozen=True)
class Described:
    """An answer that is no JSON, as the OpenAPI document describes it."""

    response: dict[str, Any]


def endpoint(
    scope: Scope,
    operation_id: str,
    example: Any = None,
    *,
    status: int = 200,
    also: tuple[int, ...] = (),
    body: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Return what a router's decorator takes.

    Args:
        scope: What a caller's key must allow.
        operation_id: The name of the operation, for generated clients.
        example: An answer; or the description of one that is no JSON.
        status: The status of success.
        also: Failures beside those of all endpoints.
        body: Whether it takes a JSON body.
        **more: Other arguments of the decorator.
    """
    good: dict[int, Any] = {}
    if isinstance(example, Described):
        good = {status: example.response}
    elif example is not None:
        good = {status: {"content": {"application/json": {"example": example}}}}
    named = (*_ALWAYS, *also, *(_WITH_BODY if body else ()))
    extra = {"x-scope": scope, **more.pop("openapi_extra", {})}
    return {
        "operation_id": operation_id,
        "status_code": status,
        "dependencies": [needs(scope)],
        "responses": {**good, **{code: _fault(code) for code in sorted(named)}},
        "openapi_extra": extra,
        **more,
    }


def needs(scope: Scope) -> Any:
    """Return the dependency that refuses callers without a scope."""

    async def check() -> None:
        current().require(scope)

    return Depends(check)


def _fault(status: int) -> dict[str, Any]:
    fault: dict[str, Any] = {"description": _FAULTS[status]}
    if status in _HEADERS:
        fault["headers"] = _HEADERS[status]
    if status != 304:
        schema = {"$ref": "#/components/schemas/Problem"}
        fault["content"] = {"application/problem+json": {"schema": schema}}
    return fault


def describe(app: FastAPI) -> None:
    """Let ``app`` describe problems and keys in its OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=[{"url": "/"}],
            )
            _add_components(document.setdefault("components", {}))
            document["security"] = [{_SECURITY: []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_components(components: dict[str, Any]) -> None:
    schema = ProblemResponse.model_json_schema()
    components.setdefault("schemas", {})["Problem"] = {**schema, "title": "Problem"}
    components["securitySchemes"] = {
        _SECURITY: {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `pgrecall keys create`. On a machine without keys none is "
            "needed there.",
        }
    }
