"""The contract of a store, on one screen, and the checks that every store shares."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from binsight.errors import BadItem, BadSettings, BadVectors, ModelMismatch, StoreDamaged
from binsight.filters import Filter, as_filter
from binsight.records import Item, Match, Metadata, StoreInfo
from binsight.vectors import Vectors, check

MAX_ID_BYTES = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_METADATA_DEPTH = 100  # SQLite's JSON parser gives up on very deep ones
MAX_K = 100_000
MAX_DIM = 65_536
MAX_INFO_BYTES = 4096  # of the name of a model
SOURCE_KEY = "_source"  # reserved: where an item's picture came from; no filter sees it

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no UTF-8 holds
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Checked items, one row an id: what a store's `_upsert` gets. `metadata` is compact JSON text."""

    ids: list[str]
    metadata: list[str]
    vectors: Vectors  # (n, dim) unit rows


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found: `problems` is empty when everything agrees; `checked` says how much was read."""

    items: int
    checked: Mapping[str, int]
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.problems


class VectorStore(ABC):
    """Items with unit vectors, found again by id, by filter and by nearness.

    Batches in, batches out. Ids are chosen by the user, never positions; the same id replaces, and the last of a batch
    wins. A query sees every upsert that returned before it began, also one of another process.
    """

    # ---- what a caller uses

    @property
    @abstractmethod
    def info(self) -> StoreInfo:
        """Which model filled the store, how many items it holds, since when, and what this kind of store adds."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of a vector."""

    def upsert(self, items: Sequence[Item], vectors: Vectors) -> None:
        """Add items, or replace those of the same id.

        vectors: float32 (n, dim) unit rows, one for each item. Returned means the items survive what the store promises
        (a local store: kill −9 and power loss). Raises BadItem, BadVectors; StoreWriteFailed when the system refuses
        the write, and then nothing of this call counts.
        """
        batch = checked_batch(items, vectors, dim=self.dim)
        if batch.ids:
            self._upsert(batch)

    def query(self, vectors: Vectors, *, k: int = 10, where: Filter | str | None = None) -> list[list[Match]]:
        """The k nearest items of each query, nearest first; fewer only when the store, or the filter, holds fewer.

        vectors: float32 (q, dim) unit rows. Raises BadVectors, BadFilter, BadSettings for k < 1.
        """
        queries = check(vectors, dim=self.dim)
        checked_k(k, most=MAX_K + 1)  # one more, for a search that leaves the item itself out
        found = as_filter(where)
        return self._query(queries, k, found) if len(queries) else []

    def get(self, ids: Sequence[str]) -> list[Item | None]:
        """The item of each id, None where the store holds none."""
        return self._get(checked_ids(ids)) if len(ids) else []

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """The vector of each id: float32 (n, dim). Raises UnknownItem, naming the ids that are not there."""
        return self._vectors_of(checked_ids(ids))

    def delete(self, ids: Sequence[str]) -> int:
        """Take items out; how many there were. Unknown ids are passed over. As durable as `upsert`."""
        return self._delete(list(dict.fromkeys(checked_ids(ids)))) if len(ids) else 0

    def hold_writes(  # noqa: B027, a store that has one writer, its opener, has nothing to do
        self, why: str, *, for_s: float, but_mine: bool = False, leaving: str = "", joining: str = ""
    ) -> None:
        """Let every write be refused, whichever process tries it (StoreHeld, saying why), for so long or until released.

        but_mine: this handle may go on writing. leaving: an alias of this store that is about to name another one; once it
        does, no write is taken any more, whatever became of who moved it. joining: one that is about to name this store; that
        others left it counts no more. When this returns, what was written is all there will be. Called again, it is renewed.
        Raises StoreHeld where another handle holds them.
        """

    def release_writes(self) -> None:  # noqa: B027
        """Take writes again, unless an alias left the store. Raises StoreHeld where another handle holds them."""

    @property
    def follows(self) -> str:
        """The id (`info.detail["id"]`) of the store that this one is being filled from by `reembed`; empty for none."""
        return ""

    def follow(self, store_id: str) -> None:  # noqa: B027, only stores that `reembed` fills remember it
        """Remember that this store is filled from that one, whose deletions it then takes over; empty: from none."""

    def tell_address(self, address: str) -> None:  # noqa: B027, only a store with one writer has somebody to tell
        """Let those who find this store locked know that its writer is a server, and where: "http://127.0.0.1:8000"."""

    @abstractmethod
    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        """Every item (that the filter lets through), in no promised order, without holding all in memory."""

    @abstractmethod
    def verify(self) -> VerifyReport:
        """Read everything and compare it with its checksums and with itself. Never raises for what it finds."""

    @abstractmethod
    def compact(self) -> None:
        """Give back the room of replaced and deleted items and bring the index up to date."""

    @abstractmethod
    def close(self) -> None:
        """Finish background work and let go of files and locks; calling it again does nothing."""

    @abstractmethod
    def __len__(self) -> int:
        """How many items the store holds."""

    def __bool__(self) -> bool:
        """A store is true, also an empty one."""
        return True

    def expect(self, info: StoreInfo) -> None:
        """Raise ModelMismatch unless this store was filled by that model (fingerprint, dimension, metric)."""
        mine = self.info
        if (mine.fingerprint, mine.dim, mine.metric) != (info.fingerprint, info.dim, info.metric):
            raise ModelMismatch(
                f"the store was filled by {mine.model!r} (fingerprint {mine.fingerprint}, {mine.dim}-d {mine.metric}), "
                f"but this is {info.model!r} (fingerprint {info.fingerprint}, {info.dim}-d {info.metric}); "
                "use the model that filled the store, or index the pictures anew into another store"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---- what a kind of store provides; arguments are checked and never empty

    @abstractmethod
    def _upsert(self, batch: Batch) -> None: ...

    @abstractmethod
    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]: ...

    @abstractmethod
    def _get(self, ids: list[str]) -> list[Item | None]: ...

    @abstractmethod
    def _vectors_of(self, ids: list[str]) -> Vectors: ...

    @abstractmethod
    def _delete(self, ids: list[str]) -> int: ...


def checked_info(info: StoreInfo) -> StoreInfo:
    """The same info, once its dimension and metric are known to be possible. Raises BadSettings."""
    if isinstance(info.dim, bool) or not isinstance(info.dim, int) or not 1 <= info.dim <= MAX_DIM:
        raise BadSettings(f"want a dimension from 1 to {MAX_DIM}, got {info.dim!r}")
    if info.metric != "cosine":
        raise BadSettings(f"want the metric 'cosine', got {info.metric!r}; other metrics are not supported")
    if not info.fingerprint or not isinstance(info.fingerprint, str):
        raise BadSettings("want the fingerprint of the model that makes the vectors, got none; pass encoder.info")
    for name, text in (("fingerprint", info.fingerprint), ("model", info.model), ("created", info.created)):
        if not isinstance(text, str) or len(text.encode(errors="replace")) > MAX_INFO_BYTES or _SURROGATE.search(text):
            raise BadSettings(f"want {name} to be text of at most {MAX_INFO_BYTES} bytes, got {ascii(text)[:100]}")
    return info


def checked_k(k: int, *, most: int = MAX_K) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most:
        raise BadSettings(f"want k from 1 to {MAX_K}, got {k!r}")
    return k


def checked_ids(ids: Sequence[str]) -> list[str]:
    """Raises BadItem for an id that no store would take, BadSettings for one string in place of a list of them."""
    if isinstance(ids, str | bytes):
        raise BadSettings(f"want a list of ids, got one string {ids!r}; pass [id]")
    return [checked_id(one) for one in ids]


def checked_id(one: str) -> str:
    if not isinstance(one, str) or not one:
        raise BadItem(f"want an id that is a string of 1 to {MAX_ID_BYTES} bytes, got {one!r}")
    if not (one.isascii() and len(one) <= MAX_ID_BYTES):
        try:
            size = len(one.encode())
        except UnicodeEncodeError as error:
            raise BadItem(f"want an id that is valid Unicode, got {one!r}") from error
        if size > MAX_ID_BYTES:
            raise BadItem(f"want an id of at most {MAX_ID_BYTES} bytes, got {size}: {one[:60]!r}…")
    if _CONTROL.search(one):
        raise BadItem(f"want an id without control characters, got {one[:200]!r}")
    return one


def metadata_text(item: Item) -> str:
    """An item's metadata as compact JSON. Raises BadItem when it is not a JSON object of at most 64 KB."""
    if not isinstance(item.metadata, dict) or not all(isinstance(key, str) for key in item.metadata):
        raise BadItem(
            f"want metadata that is a JSON object with string keys, got {type(item.metadata).__name__} for id {item.id!r}"
        )
    try:
        text = _ENCODER.encode(item.metadata)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise BadItem(f"want metadata that is JSON (finite numbers, valid Unicode) for id {item.id!r}: {error}") from error
    if text.count("{") > 1 and not _has_string_keys(item.metadata):
        raise BadItem(f"want metadata whose objects have string keys, also within others, for id {item.id!r}")
    if size > MAX_METADATA_BYTES:
        raise BadItem(f"want metadata of at most {MAX_METADATA_BYTES} bytes, got {size} for id {item.id!r}")
    if text.count("[") + text.count("{") > MAX_METADATA_DEPTH and _depth(item.metadata) > MAX_METADATA_DEPTH:
        raise BadItem(f"want metadata nested at most {MAX_METADATA_DEPTH} deep for id {item.id!r}")
    return text


def _has_string_keys(value: object) -> bool:
    """Whether every key of every object in a value is a string: JSON would make it one, and it would come back as another."""
    level = [value]
    while level:
        inner = [part for part in level if isinstance(part, dict | list | tuple)]
        if not all(isinstance(key, str) for part in inner if isinstance(part, dict) for key in part):
            return False
        level = [one for part in inner for one in (part.values() if isinstance(part, dict) else part)]
    return True


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        inner = [part for part in level if isinstance(part, dict | list | tuple)]
        level = [one for part in inner for one in (part.values() if isinstance(part, dict) else part)]
        depth += bool(inner)
    return depth


def metadata_object(text: str) -> Metadata:
    """The metadata back from its JSON text. Raises StoreDamaged for a text that `metadata_text` did not write."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"a record is not JSON: {error}; restore the store from a backup") from error
    if not isinstance(found, dict):
        raise StoreDamaged(f"a record is no JSON object but {type(found).__name__}; restore the store from a backup")
    return found


def checked_batch(items: Sequence[Item], vectors: Vectors, *, dim: int) -> Batch:
    """Items and vectors as one batch, the last of equal ids kept. Raises BadItem, BadVectors."""
    rows = check(vectors, dim=dim)
    if len(rows) != len(items):
        raise BadVectors(f"want one vector for each item, got {len(rows)} vectors for {len(items)} items")
    ids = [checked_id(item.id) for item in items]
    texts = [metadata_text(item) for item in items]
    last = {one: position for position, one in enumerate(ids)}
    if len(last) < len(ids):
        keep = sorted(last.values())
        ids, texts, rows = [ids[i] for i in keep], [texts[i] for i in keep], rows[keep]
    return Batch(ids, texts, rows)
