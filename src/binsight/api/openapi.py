"""What the OpenAPI document says beyond what FastAPI sees: bodies that we read ourselves, problem documents, keys."""

from __future__ import annotations

from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from binsight import __version__
from binsight.api import wire
from binsight.api.problems import MEDIA_TYPE
from binsight.api.uploads import FORM_TYPE, JSON_TYPE
from binsight.store.base import MAX_K

Document: TypeAlias = dict[str, Any]  # JSON
Responses: TypeAlias = dict[int | str, Document]

_REF = "#/components/schemas/{model}"
_SENT = (wire.ByVector, wire.ById, wire.VectorItem, wire.VectorBatch, wire.Problem)
_REASONS = {
    400: "A body that cannot be read.",
    401: "No API key, or one that is not known.",
    403: "The key may not do this, or the server only reads.",
    404: "There is no such item, or the id holds a line break, which none may.",
    408: "The body came too slowly.",
    409: "Vectors of another model than the store's.",
    413: "The body is too large, or has too many parts.",
    415: "Another content type than those told.",
    422: "Understood and refused: the reason says what was wanted.",
    429: "The key's rate is used up.",
    503: "No place now, or not ready; come again after `Retry-After` seconds.",
    504: "Not done in time.",
}
_ALWAYS = (401, 403, 429, 503, 504)
_UPLOAD = (400, 408, 413, 415, 422)
_IMAGE: Document = {
    "type": "string",
    "format": "binary",
    "description": "A JPEG, PNG, WEBP, BMP, TIFF or GIF file.",
    "contentMediaType": "application/octet-stream",
}


def answers(model: type[BaseModel], *more: int, upload: bool = False) -> Responses:
    """The `responses` of a route: its answer, and the problems that it may tell of. more: statuses beyond those all have."""
    statuses = sorted({*_ALWAYS, *more, *(_UPLOAD if upload else ())})
    return {200: {"model": model, "description": (model.__doc__ or "").strip()}, **{one: _problem(one) for one in statuses}}


def problems(*statuses: int) -> Responses:
    return {one: _problem(one) for one in statuses}


def body(*json_models: type[BaseModel], form: Document | None = None) -> Document:
    """The `requestBody` of a route: one of several JSON models, or a form."""
    content: Document = {}
    if form is not None:
        content[FORM_TYPE] = {"schema": form}
    if json_models:
        refs = [{"$ref": _REF.format(model=model.__name__)} for model in json_models]
        examples = {model.__name__: {"value": _example(model)} for model in json_models}
        content[JSON_TYPE] = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}, "examples": examples}
    return {"requestBody": {"required": True, "content": content}, "security": [{"key": []}]}


def form(fields: Document, *, images: int = 1) -> Document:
    """The schema of a form with one picture, or with up to so many. fields: those beside it, all optional."""
    image = _IMAGE if images == 1 else {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": images}
    return {
        "type": "object",
        "properties": {"image": image, **fields},
        "required": ["image"] if images == 1 else ["image", "items"],
        "additionalProperties": False,
    }


CHOICE: Document = {
    "k": {"type": "integer", "minimum": 1, "maximum": MAX_K, "default": 10, "description": wire.K_MEANS},
    "where": {"type": "string", "description": wire.WHERE_MEANS, "example": 'label = "ram" and quantity >= 2'},
    "min_score": {"type": "number", "minimum": -1, "maximum": 1, "description": wire.MIN_SCORE_MEANS},
}
KEYED: Document = {"security": [{"key": []}]}


def describe(app: FastAPI, *, wants_key: bool) -> Document:
    """The whole document. wants_key: whether this server asks for API keys."""
    document = get_openapi(
        title="binsight",
        version=__version__,
        summary="What is in the picture, how many, and what looks like it.",
        description=(
            "Errors are problem documents (RFC 9457). Every answer carries an `X-Request-ID`: the one you sent, or a new one. "
            "503 and 429 say in `Retry-After` when to come again."
        ),
        routes=app.routes,
    )
    _, schemas = models_json_schema([(model, "validation") for model in _SENT], ref_template=_REF)
    components = document.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | schemas["$defs"]
    if wants_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    else:
        for operation in (one for methods in document["paths"].values() for one in methods.values()):
            operation.pop("security", None)
    return document


def _problem(status: int) -> Document:
    told: Document = {
        "description": _REASONS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
    if status in (429, 503):
        told["headers"] = {
            "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds.", "required": True}
        }
    return told


def _example(model: type[BaseModel]) -> Any:  # any JSON
    extra = model.model_config.get("json_schema_extra")
    assert isinstance(extra, dict)
    examples = extra["examples"]
    assert isinstance(examples, list)
    return examples[0]
