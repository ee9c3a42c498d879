"""A picture, a vector or an id in; the similar items out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from time import perf_counter
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from binsight.encoder import Encoder, Picture
from binsight.errors import BadSettings, BadVectors
from binsight.filters import Filter
from binsight.records import Answer, Item, Match
from binsight.store.base import VectorStore, checked_k
from binsight.vectors import normalise


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer and how long its parts took, in milliseconds."""

    answer: Answer
    encode_ms: float
    search_ms: float


@final
class Searcher:
    """Answers queries from one store with the model that filled it.

    encoder may be None for a searcher that is only asked by vector and by id.
    Raises ModelMismatch, showing both fingerprints, when another model filled the store.

    >>> # Searcher(load_encoder("resnet50"), open_store("parts.store")).by_image("photo.jpg").matches
    """

    def __init__(self, encoder: Encoder | None, store: VectorStore) -> None:
        if encoder is not None:
            store.expect(encoder.info)
        self.encoder = encoder
        self.store = store

    def by_image(
        self, image: Picture, *, k: int = 10, where: Filter | str | None = None, min_score: float | None = None
    ) -> Answer:
        """The k most similar items, nearest first; with a model that counts, the picture's count too.

        min_score: leave out matches below this cosine. Raises BadImage, BadFilter, BadSettings.
        """
        return self.timed(image, k=k, where=where, min_score=min_score).answer

    def timed(self, image: Picture, *, k: int = 10, where: Filter | str | None = None, min_score: float | None = None) -> Timed:
        """`by_image`, with how long it took."""
        checked_min_score(min_score)
        started = perf_counter()
        encoded = self._encoder().encode([image])
        between = perf_counter()
        (matches,) = self.store.query(encoded.vectors, k=k, where=where)
        ended = perf_counter()
        count = encoded.counts[0] if encoded.counts is not None else None
        labels = encoded.labels[0] if encoded.labels is not None else None
        answer = Answer(above(matches, min_score), count, labels)
        return Timed(answer, 1000 * (between - started), 1000 * (ended - between))

    def by_vector(
        self,
        vector: Sequence[float] | NDArray[Any],
        *,
        k: int = 10,
        where: Filter | str | None = None,
        min_score: float | None = None,
    ) -> Answer:
        """The k most similar items to a vector of any length but zero: (dim,). Raises BadVectors."""
        checked_min_score(min_score)
        try:
            row = np.asarray(vector)
        except ValueError as error:  # lists of different lengths
            raise BadVectors(f"want {self.store.info.dim} numbers, got something else: {error}") from error
        if row.ndim != 1:
            raise BadVectors(f"want one vector of shape ({self.store.info.dim},), got shape {row.shape}")
        (matches,) = self.store.query(normalise(row[None]), k=k, where=where)
        return Answer(above(matches, min_score))

    def by_id(self, item_id: str, *, k: int = 10, where: Filter | str | None = None, min_score: float | None = None) -> Answer:
        """The k items most similar to one of the store, which is left out. Raises UnknownItem."""
        checked_min_score(min_score)
        checked_k(k)
        vectors = self.store.vectors_of([item_id])
        (matches,) = self.store.query(vectors, k=k + 1, where=where)
        others = [match for match in matches if match.item.id != item_id][:k]
        return Answer(above(others, min_score))

    def add(self, items: Sequence[Item], images: Sequence[Picture], *, batch_size: int = 64) -> None:
        """Encode pictures and upsert them with their items. Raises BadImage before anything is written of its batch."""
        if len(items) != len(images):
            raise BadSettings(f"want one image for each item, got {len(images)} images for {len(items)} items")
        if len(items):
            encoded = self._encoder().encode(images, batch_size=batch_size)
            self.store.upsert(items, encoded.vectors)

    def _encoder(self) -> Encoder:
        if self.encoder is None:
            raise BadSettings("this searcher has no encoder, so it takes no pictures; pass one to Searcher(encoder, store)")
        return self.encoder


def checked_min_score(min_score: float | None) -> float | None:
    """Raise BadSettings unless it is None or a cosine."""
    if min_score is None:
        return None
    if isinstance(min_score, bool) or not isinstance(min_score, Real) or not -1.0 <= min_score <= 1.0:
        raise BadSettings(f"want min_score from -1 to 1, got {min_score!r}")
    return float(min_score)


def above(matches: list[Match], min_score: float | None) -> list[Match]:
    """The matches whose score is not below the cut-off."""
    return matches if min_score is None else [match for match in matches if match.score >= min_score]
