"""How often an address may try a password: a few times at once, then one in a while."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import final

BURST, AGAIN_S = 5, 30.0  # tries at once; one more each so many seconds
_MOST_ADDRESSES = 10_000


@final
class Attempts:
    """What each address has left of its tries. Used from one thread, the event loop's.

    Of addresses without end only those that tried last are kept in mind.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._restored: OrderedDict[str, float] = OrderedDict()  # when an address has all of its tries again

    def take(self, address: str) -> int:
        """Take one try; 0 when there was one, else the seconds until there will be."""
        name, now = _network(address), self._clock()
        restored = max(now, self._restored.pop(name, now))
        wait_s = restored - now - (BURST - 1) * AGAIN_S
        self._restored[name] = restored if wait_s > 0 else restored + AGAIN_S
        if len(self._restored) > _MOST_ADDRESSES:
            self._restored.popitem(last=False)
        return max(0, math.ceil(wait_s))

    def forget(self, address: str) -> None:
        """The password was right: what was tried before costs nothing."""
        self._restored.pop(_network(address), None)


def _network(address: str) -> str:
    """An IPv4 address; of an IPv6 address its first half, since who has one address has all of these."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found) >> 64 << 64, 64)))
