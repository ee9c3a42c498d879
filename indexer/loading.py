"""Shards into a store: checked, resumable, and compared at the end."""

from __future__ import annotations

from pathlib import Path

from binsight.store import open_store
from binsight.store.copy import CopyReport, Progress, copy_items
from indexer.shards import Shards


def load_shards(folder: Path, url: str, *, progress: Progress | None = None) -> CopyReport:
    """Write what a folder's finished shards hold into a store, made when it is not there.

    Every file is checked before anything is taken from it. Stopped and run again, it goes on; what is there already stays.
    Raises NotAStore, StoreDamaged, ModelMismatch when another model filled the store, and what the store raises.
    """
    with Shards.open(folder, read_only=True) as shards, open_store(url, create=shards.model_info) as store:
        return copy_items(shards, store, progress=progress)
