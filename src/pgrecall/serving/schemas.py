"""What requests and answers look like; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pgrecall.embedding.base import Mode
from pgrecall.serving.problems import UNKNOWN_FIELD, shorten, shown

_VECTOR = [0.0421, -0.0173, 0.0856]
_MODEL = "builtin:all-MiniLM-L6-v2-int8"


class Asked(BaseModel):
    """What all bodies of requests have in common."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, given: Any) -> Any:
        # pydantic would make an error of each, and a body has room for a million.
        if isinstance(given, dict):
            for name in given:
                if name not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    raise PydanticCustomError(
                        UNKNOWN_FIELD,
                        "there is no field {name}: the fields are {known}",
                        {"name": shown(name), "known": known, "field": ascii(shorten(name))[1:-1]},
                    )
        return given


_Mode: TypeAlias = Annotated[
    Mode,
    Field(description="What the texts are: some models put other words before a query."),
]


class EmbedRequest(Asked):
    """A text to embed."""

    text: Annotated[str, Field(examples=["The sprint was overcommitted."])]
    mode: _Mode = "document"


class EmbedResponse(BaseModel):
    """Its vector."""

    embedding: Annotated[list[float], Field(examples=[_VECTOR])]
    dimensions: Annotated[int, Field(examples=[384])]
    model: Annotated[str, Field(examples=[_MODEL])]
    generation_time_ms: Annotated[float, Field(examples=[4.2])]


class BatchRequest(Asked):
    """Texts to embed."""

    texts: Annotated[
        list[str],
        FailFast(),
        Field(examples=[["The sprint was overcommitted.", "Velocity declined twice."]]),
    ]
    mode: _Mode = "document"


class BatchResponse(BaseModel):
    """Their vectors, in the same order."""

    embeddings: Annotated[list[list[float]], Field(examples=[[_VECTOR, _VECTOR[::-1]]])]
    count: Annotated[int, Field(examples=[2])]
    dimensions: Annotated[int, Field(examples=[384])]
    model: Annotated[str, Field(examples=[_MODEL])]
    total_time_ms: Annotated[float, Field(examples=[7.9])]


class HealthResponse(BaseModel):
    """Whether texts can be embedded now."""

    status: Annotated[Literal["ok", "unavailable"], Field(examples=["ok"])]
    model: Annotated[str, Field(examples=[_MODEL])]
    dimensions: Annotated[
        int | None, Field(description="Null before the first vector.", examples=[384])
    ]
    reason: Annotated[
        str | None, Field(description="Why it is unavailable; null if it is not.", examples=[None])
    ]


class ProblemResponse(BaseModel):
    """Problem details (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:problem-type:pgrecall:text-refused"])]
    title: Annotated[str, Field(examples=["Unprocessable Entity"])]
    status: Annotated[int, Field(examples=[422])]
    detail: Annotated[str, Field(examples=["text cannot be embedded: text 1 of 1 holds no word"])]
    field: Annotated[str | None, Field(examples=["text"])] = None


def _as_texts(given: object) -> object:
    """Return OpenAI's ``input`` as a list of texts."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise PydanticCustomError("input", "send a string or a list of strings")
    for index, text in enumerate(given):
        if isinstance(text, int | list):
            raise PydanticCustomError(
                "tokens",
                "token arrays are not taken, as the models here have other tokens than OpenAI's: "
                "send the text itself (LangChain: check_embedding_ctx_length=False)",
            )
        if not isinstance(text, str):
            raise PydanticCustomError(
                "input",
                "item {index} is no string: send a string or a list of strings",
                {"index": index},
            )
    return given


class OpenAIRequest(Asked):
    """OpenAI's request for embeddings."""

    input: Annotated[
        str | list[str],
        BeforeValidator(_as_texts),
        WithJsonSchema(
            {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
                "examples": ["The sprint was overcommitted."],
            }
        ),
    ]
    model: Annotated[
        str | None,
        Field(description="The model that is served; may be left out.", examples=[_MODEL]),
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Field(description="base64 holds little-endian floats of 4 bytes.", examples=["float"]),
    ] = None
    dimensions: Annotated[
        int | None, Field(description="Only what the model has.", examples=[384])
    ] = None
    user: Annotated[str | None, Field(description="Without effect.")] = None


class OpenAIEmbedding(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    index: Annotated[int, Field(examples=[0])]
    embedding: Annotated[list[float] | str, Field(examples=[_VECTOR])]


class OpenAIUsage(BaseModel):
    """Always 0: tokens are not counted."""

    prompt_tokens: Annotated[int, Field(examples=[0])]
    total_tokens: Annotated[int, Field(examples=[0])]


class OpenAIResponse(BaseModel):
    """OpenAI's answer with embeddings."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: Annotated[str, Field(examples=[_MODEL])]
    usage: OpenAIUsage


class OpenAIModel(BaseModel):
    """A model that is served."""

    id: Annotated[str, Field(examples=[_MODEL])]
    object: Literal["model"]
    created: Annotated[int, Field(description="When the server started.", examples=[1767225600])]
    owned_by: Annotated[str, Field(examples=["pgrecall"])]


class OpenAIModels(BaseModel):
    """The models that are served: one."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIFault(BaseModel):
    """What went wrong."""

    message: Annotated[str, Field(examples=["the model 'gpt' does not exist"])]
    type: Annotated[str, Field(examples=["invalid_request_error"])]
    param: Annotated[str | None, Field(examples=["model"])]
    code: Annotated[str | None, Field(examples=["model_not_found"])]


class OpenAIError(BaseModel):
    """OpenAI's form of an error."""

    error: OpenAIFault
