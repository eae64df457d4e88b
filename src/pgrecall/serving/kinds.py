"""Kinds of values in requests: as strict as their JSON Schema says, so that nothing is guessed."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _as_time(given: object) -> datetime:
    if isinstance(given, datetime):
        return given
    if not isinstance(given, str) or not _TIME.fullmatch(given):
        raise PydanticCustomError("time", "write it as 2026-05-01T14:30:00+02:00")
    try:
        return datetime.fromisoformat(given.upper())
    except ValueError:
        raise PydanticCustomError("time", "there is no such time") from None


def _as_uuid(given: object) -> UUID:
    if isinstance(given, UUID):
        return given
    if not isinstance(given, str) or not _UUID.fullmatch(given):
        raise PydanticCustomError("uuid", "send a UUID, as 8-4-4-4-12 hexadecimal digits")
    return UUID(given)


def _as_flag(given: object) -> object:
    """Take what JSON calls a truth value, and no other word for it."""
    return {"true": True, "false": False}.get(given, given) if isinstance(given, str) else given


def _as_document(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        value: Any = orjson.loads(given)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise PydanticCustomError("document", "send a JSON object, as text")
    return value


Time: TypeAlias = Annotated[
    datetime,
    BeforeValidator(_as_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
    Field(examples=["2026-05-01T14:30:00+02:00"]),
]
Id: TypeAlias = Annotated[
    UUID,
    BeforeValidator(_as_uuid),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Flag: TypeAlias = Annotated[
    bool, BeforeValidator(_as_flag), Field(strict=True), WithJsonSchema({"type": "boolean"})
]
"""A truth value in a query."""
DocumentText: TypeAlias = Annotated[
    dict[str, Any],
    BeforeValidator(_as_document),
    WithJsonSchema(
        {"type": "string", "contentMediaType": "application/json",
         "description": "Only those that contain this JSON object."}
    ),
]  # fmt: skip
"""A JSON object in a query."""

ProjectId: TypeAlias = Annotated[str, Field(min_length=1, max_length=50, examples=["apollo"])]
Short: TypeAlias = Annotated[str, Field(min_length=1, max_length=50)]
Version: TypeAlias = Annotated[str, Field(min_length=1, max_length=20, examples=["1.4.0"])]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Numbers: TypeAlias = Annotated[
    list[Annotated[float, Field(allow_inf_nan=False)]],
    Field(min_length=1, max_length=16_000, description="As long as the memory's vectors."),
]
Document: TypeAlias = dict[str, Any]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=1000)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3_153_600_000, allow_inf_nan=False)]


class InQuery(BaseModel):
    """What all queries have in common: a parameter that there is none of is refused."""

    model_config = ConfigDict(extra="forbid")


def given(model: BaseModel, *without: str) -> dict[str, Any]:
    """Return the values of a request that are not null."""
    return {
        name: value
        for name in type(model).model_fields
        if name not in without and (value := getattr(model, name)) is not None
    }
