"""What a client is told when a request fails, in the form that its path promises.

Bodies hold what is written here and names of fields, never the text of an exception: that may
hold a path, an address or a key, and goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

logger = logging.getLogger(__name__)

OPENAI_PREFIX = "/v1/"
"""Paths below it promise OpenAI's form of errors; all others RFC 9457."""

UNKNOWN_FIELD = "unknown_field"
"""The type of pydantic's error for a field that there is none of; its context has the name."""

_TYPE = "urn:problem-type:pgrecall:"
_MOST_ERRORS = 10
_LONGEST_NAME = 100


@dataclass(eq=False)
class Problem(Exception):
    """A request that fails, and what its client is told.

    Attributes:
        status: The HTTP status.
        code: What kind of problem it is, in words with hyphens.
        detail: What was wrong, with which value, and what to do.
        name: The field concerned, such as ``texts[2]``.
        headers: Headers of the response.
    """

    status: int
    code: str
    detail: str
    name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, path: str) -> Response:
        """Return the response, in the form of errors that ``path`` promises."""
        if path.startswith(OPENAI_PREFIX):
            return self._of_openai()
        body: dict[str, Any] = {
            "type": _TYPE + self.code,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.name is not None:
            body["field"] = self.name
        return JSONResponse(
            body, self.status, dict(self.headers), media_type="application/problem+json"
        )

    def _of_openai(self) -> Response:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": self.detail,
            "type": kind,
            "param": self.name,
            "code": self.code.replace("-", "_"),
        }
        return JSONResponse({"error": error}, self.status, dict(self.headers))


def install(app: FastAPI) -> None:
    """Let everything that fails in ``app`` become a problem."""
    app.add_exception_handler(Problem, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_starlette)
    app.add_exception_handler(Exception, _of_anything)


def shorten(name: str) -> str:
    """Return a name that a client gave, short enough for a message."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def shown(name: str) -> str:
    """Return it in quotes."""
    return ascii(shorten(name))


def _of_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - registered for it alone
    return error.response(request.url.path)


def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    path = request.url.path
    found = error.errors()[:_MOST_ERRORS]
    if found[0]["type"] == "json_invalid":
        where = found[0]["loc"][-1]
        why = f"{found[0]['ctx']['error']}, at character {where}"
        return Problem(400, "malformed-json", f"the body is no JSON: {why}").response(path)
    if found[0]["loc"] == ("body",) and found[0]["type"] in ("missing", "model_attributes_type"):
        detail = "the body is no JSON object: send one with the fields that /openapi.json names"
        return Problem(_invalid(path), "invalid", detail).response(path)
    names = [_field(item) for item in found]
    told = [
        item["msg"] if name is None or item["type"] == UNKNOWN_FIELD else f"{name}: {item['msg']}"
        for name, item in zip(names, found, strict=True)
    ]
    return Problem(_invalid(path), "invalid", "; ".join(told), name=names[0]).response(path)


def _invalid(path: str) -> int:
    """OpenAI answers 400 to what others answer 422."""
    return 400 if path.startswith(OPENAI_PREFIX) else 422


def _field(item: Mapping[str, Any]) -> str | None:
    """Return ``texts[3]`` for ``("body", "texts", 3)``; None for the body itself."""
    if item["type"] == UNKNOWN_FIELD:
        return str(item["ctx"]["field"])
    parts = item["loc"][1:]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return name.lstrip(".") or None


def _of_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    path = request.url.path
    headers = error.headers or {}
    if error.status_code == 404:
        detail = f"there is nothing at {shown(path)}: /openapi.json names what there is"
        return Problem(404, "not-found", detail, headers=headers).response(path)
    if error.status_code == 405:
        allowed = _allowed(request)
        headers = {**headers, "Allow": allowed}
        detail = f"{request.method} is not for {shown(path)}: use {allowed}"
        return Problem(405, "method-not-allowed", detail, headers=headers).response(path)
    if error.status_code == 400:  # FastAPI's only one: a body that is not UTF-8, or nested too deep
        detail = "the body cannot be read as JSON: send UTF-8, and no deep nesting"
        return Problem(400, "malformed-json", detail, headers=headers).response(path)
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    return Problem(error.status_code, code, phrase, headers=headers).response(path)


def _allowed(request: Request) -> str:
    """Return the methods of a path; Starlette names those of the first route alone."""
    methods: set[str] = set()
    for route in request.app.state.endpoints:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods)) or "another method"


def _of_anything(request: Request, _: Exception) -> Response:
    # Starlette raises it on when this is sent, and the server logs it with its traceback.
    detail = "the server failed on this request; its log says why"
    return Problem(500, "internal", detail).response(request.url.path)
