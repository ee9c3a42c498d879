"""Where a job's items go: a store, or shards of Parquet and .npy files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from binsight.data.part import WHOLE, Part
from binsight.encoder import Encoder
from binsight.errors import BadSettings
from binsight.paths import user_path
from binsight.settings import Settings
from binsight.store import VectorStore
from binsight.wiring import encoder_for, open_for_indexing

SHARDS = "shards:"  # before the folder of a sink that is no store


@dataclass(frozen=True, slots=True)
class Sink:
    """An open sink and the model that fills it; a context manager. finish: puts on disk what waits for its shard to fill."""

    encoder: Encoder
    store: VectorStore
    finish: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.store.close()


def is_shards(url: str) -> bool:
    return url.startswith(SHARDS)


def open_sink(url: str, model: str | None, settings: Settings, *, part: Part = WHOLE, shard_items: int = 4096) -> Sink:
    """The sink of a URL, made when it is not there, and its model, by default the one that filled it.

    Raises what `open_for_indexing` does, MissingExtra without pyarrow.
    """
    if not is_shards(url):
        return Sink(*open_for_indexing(url, model, settings))
    from indexer.shards import MANIFEST, Shards, manifest_of  # late: pyarrow is an extra

    folder = user_path(url.removeprefix(SHARDS), error=BadSettings)
    if model is None and not (folder / MANIFEST).exists():
        raise BadSettings(f"{folder} holds no shards; new ones need --model, for example --model resnet50")
    encoder = encoder_for(model or manifest_of(folder).model, settings)
    shards = Shards.open(folder, encoder.info, part=part, shard_items=shard_items)
    return Sink(encoder, shards, shards.finish)
