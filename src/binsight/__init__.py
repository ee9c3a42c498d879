"""binsight: what is in the picture, how many, and does it agree with the books.

The public names are loaded when first used, so that `import binsight` loads neither torch nor faiss.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binsight import errors
    from binsight.client import Client
    from binsight.encoder import Encoder, load_encoder
    from binsight.filters import Filter
    from binsight.records import Answer, Count, Encoded, Item, Match, StoreInfo
    from binsight.search import Searcher
    from binsight.store import VectorStore, open_store

__version__ = "0.1.0"

_HOMES = {
    "Answer": "binsight.records",
    "Client": "binsight.client",
    "Count": "binsight.records",
    "Encoded": "binsight.records",
    "Encoder": "binsight.encoder",
    "Filter": "binsight.filters",
    "Item": "binsight.records",
    "Match": "binsight.records",
    "Searcher": "binsight.search",
    "StoreInfo": "binsight.records",
    "VectorStore": "binsight.store",
    "load_encoder": "binsight.encoder",
    "open_store": "binsight.store",
}

__all__ = [
    "Answer",
    "Client",
    "Count",
    "Encoded",
    "Encoder",
    "Filter",
    "Item",
    "Match",
    "Searcher",
    "StoreInfo",
    "VectorStore",
    "__version__",
    "errors",
    "load_encoder",
    "open_store",
]


def __getattr__(name: str) -> Any:  # the type of a name depends on the name
    if name == "errors":
        return import_module("binsight.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'binsight' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
