"""Which store to answer from: the one at a URL, or whichever its alias names."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from binsight.api.metrics import Metrics
from binsight.api.service import Service
from binsight.errors import StoreUnavailable
from binsight.store import open_alias
from binsight.store.alias import Alias


@final
class Followed:
    """Opens services for the store behind a URL. open_at: opens one, warm, for the URL of a store itself."""

    def __init__(self, url: str, open_at: Callable[[str, Metrics], Service]) -> None:
        self._url, self._open_at = url, open_at
        self._alias: Alias | None = None
        self._behind: str | None = None

    def open(self, metrics: Metrics) -> Service:
        """A service for the store that stands behind the URL now."""
        if self._alias is None and not self._url.startswith("exact:"):
            self._alias = open_alias(self._url)
        behind = None if self._alias is None else self._alias.target()
        if self._alias is None or behind is None:
            return self._open_at(self._url, metrics)
        service = self._open_at(self._alias.url_of(behind), metrics)
        self._behind = behind
        return service

    def has_moved(self) -> bool:
        """Whether the alias names another store than the one opened last. Of a server that cannot be asked: no."""
        if self._alias is None or self._behind is None:
            return False
        try:
            return self._alias.target() != self._behind
        except StoreUnavailable:
            return False

    def close(self) -> None:
        if self._alias is not None:
            self._alias.close()
