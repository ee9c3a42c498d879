"""The alias of a shared store: a key that names the index behind it."""

from __future__ import annotations

from typing import final

from binsight.errors import BadSettings, StoreDamaged
from binsight.store import redis_about, redis_url
from binsight.store.alias import Alias, checked_name
from binsight.store.redis_items import decoded
from binsight.store.redis_link import RedisLink
from binsight.store.redis_url import RedisUrl


@final
class RedisAlias(Alias):
    """A key beside the indexes of a Redis server or cluster."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._place = redis_url.parse(url)
        self._link = RedisLink(self._place)

    def target(self) -> str | None:
        return read(self._place, self._link)

    def url_of(self, name: str) -> str:
        return redis_url.with_index(self.url, name)

    def point_at(self, name: str) -> None:
        """Raises BadSettings where a store has the alias's own name, for nobody would come to it any more."""
        if redis_about.read(self._place, self._link) is not None:
            raise BadSettings(f"{self._place.shown} is a store itself; choose another name for the alias")
        key = _key(self._place)
        self._link.ask({key: [("SET", key, checked_name(name))]})

    def close(self) -> None:
        self._link.close()


def read(url: RedisUrl, link: RedisLink) -> str | None:
    """The index behind an alias; None where there is no alias of that name."""
    key = _key(url)
    text = link.ask({key: [("GET", key)]})[key][0]
    if text is None:
        return None
    try:
        return checked_name(decoded(text))
    except BadSettings as error:
        raise StoreDamaged(f"{url.shown}: the key {key} names no index: {error}") from error


def _key(url: RedisUrl) -> str:
    return f"binsight:{{{url.index}}}:alias"
