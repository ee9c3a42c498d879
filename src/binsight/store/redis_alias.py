"""The alias of a shared store: a key that names the index behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from binsight.errors import BadSettings, StoreDamaged
from binsight.store import redis_about, redis_url
from binsight.store.alias import Alias, checked_name, moved
from binsight.store.redis_items import decoded
from binsight.store.redis_link import RedisLink
from binsight.store.redis_url import RedisUrl

# Gives the former name. Sent again after a lost answer, it finds its own.
_EXCHANGE = """
local now = redis.call('GET', KEYS[1]) or ''
if now == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return now
"""


@final
class RedisAlias(Alias):
    """A key beside the indexes of a Redis server or cluster."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._place = redis_url.parse(url)
        self._link = RedisLink(self._place)

    @property
    def name(self) -> str:
        return self._place.index

    def target(self) -> str | None:
        return read(self._place, self._link)

    def url_of(self, name: str, *, is_new: bool = False) -> str:
        return redis_url.with_index(self.url, checked_name(name), keep_shape=is_new)

    @property
    def own_url(self) -> str:
        return redis_url.with_index(self.url, self._place.index, keep_shape=False)

    def is_alias(self, name: str) -> bool:
        return read(replace(self._place, index=name), self._link) is not None

    def _exchange(self, former: str | None, name: str) -> None:
        """Raises BadSettings where a store has the alias's own name, for nobody would come to it any more."""
        if redis_about.read(self._place, self._link) is not None:
            raise BadSettings(f"{self._place.shown} is a store itself; choose another name for the alias")
        key = _key(self._place)
        (now,) = self._link.ask({key: [("EVAL", _EXCHANGE, 1, key, former or "", name)]})[key]
        if decoded(now) not in (former or "", name):
            raise moved(self._place.shown, former, decoded(now) or None)

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
