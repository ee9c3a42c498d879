"""What answers the screens: a store and a model in this process, or a running API."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit

import numpy as np

from binsight.app.survey import Survey, survey_of
from binsight.errors import BadSettings
from binsight.images import ImageLike
from binsight.records import Answer, Count, Item, StoreInfo
from binsight.search import Searcher
from binsight.store import shown_url

if TYPE_CHECKING:
    from binsight.client import Client

_PROBES, _PROBE_K = 6, 50  # questions to an API, which lists nothing, that bring up some of its items


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found, in a sentence."""

    is_sound: bool
    told: str


class Backend(ABC):
    """The verbs of the screens. Safe to use from several threads. Raises what `Searcher` and `Client` raise."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What answers, in a few words for people."""

    @abstractmethod
    def find(self, photo: ImageLike, *, k: int, where: str | None) -> Answer:
        """The k most similar items."""

    @abstractmethod
    def like(self, item_id: str, *, k: int, where: str | None) -> Answer:
        """The k items most similar to one of the store."""

    @abstractmethod
    def count(self, photo: ImageLike) -> Count:
        """How many items a photo shows. Raises BadSettings where the model does not count."""

    @abstractmethod
    def item(self, item_id: str) -> Item | None:
        """One item, None where the store does not hold it."""

    @abstractmethod
    def info(self) -> StoreInfo:
        """Which model filled the store, and how many items it holds."""

    @abstractmethod
    def survey(self) -> Survey:
        """Fields, a sample and the newest pictures, from some of the items."""

    @abstractmethod
    def check(self) -> Health:
        """Look after the store's health."""

    @abstractmethod
    def close(self) -> None:
        """Let the store, or the connections, go."""


@final
class Local(Backend):
    """A store that was opened for reading, and the model that filled it."""

    def __init__(self, searcher: Searcher, url: str) -> None:
        assert searcher.encoder is not None
        self._searcher, self._encoder, self._url = searcher, searcher.encoder, url

    @property
    def name(self) -> str:
        return f"the store {shown_name(self._url)}"

    def find(self, photo: ImageLike, *, k: int, where: str | None) -> Answer:
        return self._searcher.by_image(photo, k=k, where=where)

    def like(self, item_id: str, *, k: int, where: str | None) -> Answer:
        return self._searcher.by_id(item_id, k=k, where=where)

    def count(self, photo: ImageLike) -> Count:
        if self._encoder.heads.count is None:
            raise BadSettings(
                f"the model {self._encoder.info.model} does not count; start the app with one that was trained to"
            )
        counts = self._encoder.encode([photo]).counts
        assert counts is not None  # there is such a head
        return counts[0]

    def item(self, item_id: str) -> Item | None:
        return self._searcher.store.get([item_id])[0]

    def info(self) -> StoreInfo:
        return self._searcher.store.info

    def survey(self) -> Survey:
        store = self._searcher.store
        return survey_of(store.scan(), len(store), random.Random())  # noqa: S311, a sample to look at

    def check(self) -> Health:
        problems = self._searcher.store.verify().problems
        if not problems:
            return Health(True, "The store is sound: everything was read, and it agrees with its checksums and with itself.")
        many = f"{len(problems)} problems; the first" if len(problems) > 1 else "one problem"
        return Health(False, f"The store has {many}: {problems[0]}")

    def close(self) -> None:
        self._searcher.store.close()


def shown_name(url: str) -> str:
    """A store's URL as visitors may see it: no password, and no more of a path than its last part."""
    told = shown_url(url)
    return told if "://" in told else told.rstrip("/").rpartition("/")[2].removeprefix("faiss:")


@final
class Remote(Backend):
    """A server that `binsight serve` runs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return f"the server {urlsplit(self._client.url).netloc.rpartition('@')[2]}"

    def find(self, photo: ImageLike, *, k: int, where: str | None) -> Answer:
        return self._client.by_image(photo, k=k, where=where)

    def like(self, item_id: str, *, k: int, where: str | None) -> Answer:
        return self._client.by_id(item_id, k=k, where=where)

    def count(self, photo: ImageLike) -> Count:
        return self._client.count(photo)

    def item(self, item_id: str) -> Item | None:
        return self._client.get([item_id])[0]

    def info(self) -> StoreInfo:
        return self._client.info()

    def survey(self) -> Survey:
        info = self.info()
        found = survey_of(self._some_items(info), info.items, random.Random())  # noqa: S311, a sample to look at
        return replace(found, is_listed=False)

    def _some_items(self, info: StoreInfo) -> Iterator[Item]:
        """Items near random directions, each once: a server tells what is near, not what there is."""
        known: set[str] = set()
        directions = np.random.default_rng().standard_normal((_PROBES, info.dim))
        for direction in directions if info.items else ():
            for match in self._client.by_vector(direction, k=_PROBE_K, fingerprint=info.fingerprint).matches:
                if match.item.id not in known:
                    known.add(match.item.id)
                    yield match.item
            if len(known) >= info.items:
                return

    def check(self) -> Health:
        started = perf_counter()
        items = self.info().items
        return Health(True, f"The server answers, in {1000 * (perf_counter() - started):.0f} ms: {items:,} items.")

    def close(self) -> None:
        self._client.close()
