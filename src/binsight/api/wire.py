"""The bodies that requests may have and answers will have: read strictly, told to OpenAPI with examples."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from binsight.store.base import MAX_DIM, MAX_ID_BYTES, MAX_K

MOST_VECTORS = 256  # items of one batch with vectors
MOST_IMAGES = 32  # items of one batch with pictures

Id: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_ID_BYTES, description="At most 512 bytes of UTF-8, no control characters.")
]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Vector: TypeAlias = Annotated[
    list[Number],
    Field(
        min_length=1,
        max_length=MAX_DIM,
        fail_fast=True,
        description="As many numbers as `dim` of /v1/info, not all zero; any length counts.",
    ),
]
Metadata: TypeAlias = Annotated[
    dict[str, Any],
    Field(description="A JSON object of at most 64 KB. The key `_source` is reserved."),
]  # not JsonValue: it was read from JSON, and to be told so again takes a microsecond a value
K_MEANS = "How many matches; a server takes up to 1000 unless it was told otherwise."
WHERE_MEANS = "Only items that pass this filter."
MIN_SCORE_MEANS = "Leave out matches below this cosine, from -1 to 1."
K: TypeAlias = Annotated[int, Field(ge=1, le=MAX_K, description=K_MEANS)]
Where: TypeAlias = Annotated[
    str | None, Field(description=f'{WHERE_MEANS} Example: `label = "ram" and quantity >= 2`.', max_length=16_384)
]
Fingerprint: TypeAlias = Annotated[
    str | None,
    Field(max_length=128, description="Of the model that made the vectors, as /v1/info tells it; another one is answered 409."),
]
MinScore: TypeAlias = Annotated[float | None, Field(ge=-1, le=1, allow_inf_nan=False, description=MIN_SCORE_MEANS)]


class _Sent(BaseModel):
    """A body of JSON: nothing is guessed, nothing unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _with_one_unknown(cls, told: Any) -> Any:  # any JSON
        """Of many unknown fields only one: an error for each of 400,000 took 4 s and 400 MB."""
        if not isinstance(told, dict) or len(told) <= len(cls.model_fields):
            return told
        unknown = next(name for name in told if name not in cls.model_fields)
        return {name: told[name] for name in cls.model_fields if name in told} | {unknown: None}


class _Typed(BaseModel):
    """The text fields of a form, where a number is written out."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Choice(BaseModel):
    k: K = 10
    where: Where = None
    min_score: MinScore = None


class ByVector(_Choice, _Sent):
    """Search with a vector of the store's model."""

    vector: Vector
    fingerprint: Fingerprint = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"vector": [0.6, 0.8], "k": 3}]})


class ById(_Choice, _Sent):
    """Search with an item of the store, which is left out of the answer."""

    id: Id

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "shelf-1/RAM-1.jpg", "k": 3, "where": 'label = "ram"'}]})


class ImageChoice(_Choice, _Typed):
    """The fields beside the picture."""


class NoFields(_Typed):
    """A form that holds a picture and nothing else."""


class _VectorItem(_Sent):
    vector: Vector
    metadata: Metadata = {}


class VectorItem(_VectorItem):
    """An item's record and its vector."""

    fingerprint: Fingerprint = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"vector": [0.6, 0.8], "metadata": {"label": "ram"}}]})


class BatchVectorItem(_VectorItem):
    """One item of a batch."""

    id: Id

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "shelf-1/RAM-1.jpg", "vector": [0.6, 0.8], "metadata": {"label": "ram"}}]}
    )


class VectorBatch(_Sent):
    """Items with their vectors; of equal ids the last one wins."""

    items: Annotated[list[BatchVectorItem], Field(min_length=1, max_length=MOST_VECTORS, fail_fast=True)]
    fingerprint: Fingerprint = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"id": "RAM-1", "vector": [0.6, 0.8], "metadata": {"label": "ram"}}]}]}
    )


class Record(_Sent):
    """An id and what is known of it."""

    id: Id
    metadata: Metadata = {}


class Records(_Sent):
    """What belongs to the pictures of a batch, in their order."""

    items: Annotated[list[Record], Field(min_length=1, max_length=MOST_IMAGES, fail_fast=True)]


class CountAnswer(BaseModel):
    """How many items are in a picture. `high` = max_count + 1 stands for "more"."""

    value: int
    expected: float
    probabilities: list[float]
    more: float
    low: int
    high: int

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"value": 2, "expected": 1.9, "probabilities": [0.1, 0.2, 0.5, 0.1], "more": 0.1, "low": 1, "high": 3}]
        }
    )


class PictureCount(CountAnswer):
    """One row of `count --json`; `path` is what the sender called the picture."""

    path: str | None


class MatchAnswer(BaseModel):
    """An item and its cosine with the query; larger is nearer."""

    id: str
    score: Annotated[float, Field(ge=-1, le=1)]
    metadata: dict[str, Any]  # any JSON


class SearchAnswer(BaseModel):
    """Matches, nearest first; for a picture its count too, where the model counts."""

    count: CountAnswer | None
    matches: list[MatchAnswer]
    took_ms: dict[str, float]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "count": None,
                    "matches": [{"id": "RAM-1", "score": 0.93, "metadata": {"label": "ram", "quantity": 4}}],
                    "took_ms": {"search": 0.4},
                }
            ]
        }
    )


class InspectAnswer(SearchAnswer):
    """All that the model and the store say of one picture, from one pass."""

    labels: list[tuple[str, float]] | None


class ItemAnswer(BaseModel):
    """An item as the store holds it."""

    id: str
    metadata: dict[str, Any]  # any JSON

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "RAM-1", "metadata": {"label": "ram", "quantity": 4}}]})


class UpsertedAnswer(BaseModel):
    """How many items were written; they survive what the store promises."""

    upserted: int


class DeletedAnswer(BaseModel):
    """How many items were taken out."""

    deleted: int


class InfoAnswer(BaseModel):
    """As `store info --json`; each kind of store adds its own."""

    items: int
    dim: int
    fingerprint: str
    model: str
    metric: str
    created: str

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"items": 2, "dim": 512, "fingerprint": "9f…", "model": "resnet50", "metric": "cosine", "created": "2026-11-21"}
            ]
        },
    )


class StatusAnswer(BaseModel):
    """A word."""

    status: str


class Problem(BaseModel):
    """A problem document, RFC 9457. `type` ends with the name of an error of the Python library, or is about:blank."""

    type: str
    title: str
    status: int
    detail: str

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:binsight:UnknownItem",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no item has the id 'RAM-9'",
                }
            ]
        }
    )
