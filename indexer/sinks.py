"""Where a job's items go: a store, or shards of Parquet and .npy files."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from binsight.data.part import WHOLE, Part
from binsight.encoder import Encoder
from binsight.settings import Settings
from binsight.store import VectorStore, redis_url
from binsight.wiring import open_for_indexing

SHARDS = "shards:"  # before the folder of a sink that is no store


@dataclass(frozen=True, slots=True)
class Sink:
    """An open sink and the model that fills it; a context manager."""

    encoder: Encoder
    store: VectorStore

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.store.close()


def open_sink(url: str, model: str | None, settings: Settings, *, part: Part = WHOLE, shard_items: int = 4096) -> Sink:
    """The sink of a URL, made when it is not there, and its model; opened (and locked) before the model is loaded."""
    encoder, store = open_for_indexing(url, model, settings)
    return Sink(encoder, store)


def shown_sink(url: str) -> str:
    """A sink's URL without a password."""
    return redis_url.parse(url).shown if url.partition(":")[0].lower() in redis_url.SCHEMES else url
