"""Which store to answer from: the one at a URL, or whichever its alias names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, final

from binsight.errors import NotAStore, StoreUnavailable
from binsight.store import open_alias, shown_url
from binsight.store.alias import Alias

T = TypeVar("T")


@final
class Followed:
    """Opens what answers from the store behind a URL, and says when another one stands there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._alias: Alias | None = None
        self._behind: str | None = None

    def open(self, open_at: Callable[[str], T]) -> T:
        """What `open_at` makes of the URL of the store itself that stands behind the URL now.

        Raises NotAStore where an alias that was followed is gone: a store made in its place would be empty, and hide it.
        """
        if self._alias is None and not self._url.startswith("exact:"):
            self._alias = open_alias(self._url)
        behind = None if self._alias is None else self._alias.target()
        if behind is None and self._behind is not None:
            raise NotAStore(f"{shown_url(self._url)} names no store any more; let it name one: binsight store alias")
        if self._alias is None or behind is None:
            return open_at(self._url)
        opened = open_at(self._alias.url_of(behind))
        self._behind = behind
        return opened

    @property
    def is_alias(self) -> bool:
        """Whether the URL was an alias's when it was opened last."""
        return self._behind is not None

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
