"""The frozen records that cross seams."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from binsight.vectors import Vectors

Metadata: TypeAlias = dict[str, Any]  # a JSON object, so the values are any JSON


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a store: an id chosen by the user and its record.

    id: 1 to 512 bytes of UTF-8 without control characters. metadata: a JSON object of at most 64 KB; the key `_source`
    is reserved for where its picture came from. Both are checked by the store that takes the item.
    """

    id: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """An item and its cosine with the query, in [−1, 1]; larger is nearer."""

    item: Item
    score: float


@dataclass(frozen=True, slots=True)
class Count:
    """How many items are in a picture.

    `probabilities[i]` is P(i items) for i = 0 … max_count and `more` is P(more than max_count); together they are 1.
    `value` is the most likely of 0 … max_count, `expected` the mean over 0 … max_count renormalised, `low` … `high` the
    calibrated interval, where high = max_count + 1 stands for "more".
    """

    value: int
    expected: float
    probabilities: tuple[float, ...]
    more: float
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a model says of a batch of n pictures.

    vectors: float32 (n, dim) unit rows. counts and labels: n each, or None where the model has no such head; a label is
    a tuple of (name, probability), most likely first.
    """

    vectors: Vectors
    counts: list[Count] | None = None
    labels: list[tuple[tuple[str, float], ...]] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What binsight says of one query: matches, nearest first, and the picture's count and labels where there are any."""

    matches: list[Match]
    count: Count | None = None
    labels: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Which model's vectors these are, and, from a store, how many and since when.

    dim: length of a vector. fingerprint: of the model, see `checkpoint.fingerprint`. model: its name, for people.
    metric: always "cosine". items and created (UTC, ISO 8601) are a store's; `detail` is what one kind of store adds
    (for example the kind of its index, or the durability its server gives).
    """

    dim: int
    fingerprint: str
    model: str
    metric: str = "cosine"
    items: int = 0
    created: str = ""
    detail: Metadata = field(default_factory=dict)
