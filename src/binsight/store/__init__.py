"""Stores, and `open_store`: the only list of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from binsight.errors import BadSettings, NotAStore
from binsight.paths import user_path
from binsight.records import StoreInfo
from binsight.store import alias, redis_url
from binsight.store.alias import Alias, LocalAlias
from binsight.store.base import VectorStore, VerifyReport, checked_info

__all__ = ["Alias", "StoreInfo", "VectorStore", "VerifyReport", "check_kept", "open_alias", "open_store", "shown_url"]


def shown_url(url: str | Path) -> str:
    """A store's URL as it may be told: without a password.

    >>> shown_url("redis://clerk:secret@host/0?index=parts"), shown_url("parts.store")
    ('redis://host:6379/0?index=parts', 'parts.store')
    """
    text = str(url)
    return redis_url.parse(text).shown if text.partition(":")[0].lower() in redis_url.SCHEMES else text


def open_store(url: str | Path, *, create: StoreInfo | None = None, read_only: bool = False) -> VectorStore:
    """The store at a URL: `PATH` or `faiss:PATH` a local folder, `exact:` in memory, `redis://…` shared.

    The path or index may be an alias's: then the store behind it. create: make the store when it is not there; when it is, it
    must have been filled by that model. read_only: take no lock and refuse writes; any number of readers may stand beside the
    one writer.
    Raises NotAStore, StoreLocked, StoreDamaged, ModelMismatch, MissingExtra, BadSettings.
    """
    text = str(url)
    kind, _, rest = text.partition(":")
    if create is not None:
        checked_info(create)
    if kind.lower() in redis_url.SCHEMES:
        return _shared(text, create, read_only=read_only)
    if rest.startswith("//"):
        raise BadSettings(
            f"{kind}:// is no kind of store; there are a folder's path, exact: and {', '.join(redis_url.SCHEMES)}"
        )
    if text.startswith("shards:"):
        raise BadSettings(
            f"{text} is no store: `python -m indexer run … --store {text}` fills shards, `python -m indexer load` loads them"
        )
    if kind == "exact" and text.startswith("exact:"):
        return _exact(rest, create, read_only=read_only)
    return _local(rest if kind == "faiss" and text.startswith("faiss:") else text, create, read_only=read_only)


def check_kept(url: str) -> None:
    """Raise BadSettings for a store that ends with the process that fills it."""
    if url.startswith("exact:"):
        raise BadSettings("exact: lives in memory and would be gone at once; give a path or a Redis URL")


def open_alias(url: str | Path) -> Alias:
    """The name at a URL, which may be an alias or become one. Raises BadSettings where there are none (`exact:`)."""
    text = str(url)
    kind, _, rest = text.partition(":")
    if kind.lower() in redis_url.SCHEMES:
        from binsight.store.redis_alias import RedisAlias  # late: redis is an extra

        return RedisAlias(text)
    if rest.startswith("//") or text.startswith("exact:"):
        raise BadSettings(f"{text} can be no alias; a file's path or a Redis URL can")
    return LocalAlias(rest if text.startswith("faiss:") else text)


def _exact(rest: str, create: StoreInfo | None, *, read_only: bool) -> VectorStore:
    from binsight.store.exact import ExactStore

    if rest:
        raise BadSettings(f"want 'exact:' with nothing after it, got 'exact:{rest}'; it lives in memory only")
    if create is None:
        raise BadSettings("an exact: store begins empty: pass create=encoder.info")
    return ExactStore(create, read_only=read_only)


def _shared(url: str, create: StoreInfo | None, *, read_only: bool) -> VectorStore:
    place = redis_url.parse(url)
    from binsight.store.redis_store import RedisStore  # late: redis is an extra

    store = RedisStore.open(place, create, read_only=read_only)
    return _expected(store, create)


def _local(path: str, create: StoreInfo | None, *, read_only: bool) -> VectorStore:
    if not path or "\0" in path:
        raise BadSettings(f"want the path of a folder, got {path!r}")
    from binsight.store.faiss_store import FaissStore  # late: faiss is an extra

    folder = user_path(path, error=BadSettings)
    if (behind := alias.read(folder)) is not None:
        named, folder = folder, folder.parent / behind
        if not os.path.exists(folder):  # noqa: PTH110, as below
            raise NotAStore(f"{named} is an alias of {behind}, which is not there")
    is_there = os.path.exists(folder / "CURRENT")  # noqa: PTH110, false too where the system refuses to look
    if create is not None and not is_there and not read_only:
        store = FaissStore.create(folder, create, created=create.created or datetime.now(UTC).isoformat(timespec="seconds"))
    else:
        store = FaissStore.open(folder, read_only=read_only)
    return _expected(store, create)


def _expected(store: VectorStore, create: StoreInfo | None) -> VectorStore:
    """The store, once it is known to have been filled by that model; closed when it was not."""
    try:
        if create is not None:
            store.expect(create)
    except BaseException:
        store.close()
        raise
    return store
