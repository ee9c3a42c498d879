"""One store takes another's place behind an alias: whose writes wait meanwhile, and for how long.

The store that is filled takes writes of its filler alone. The one that is replaced takes none from before its last reading.
Both are held for a time, which is renewed, so that nothing stays held when the process is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic, sleep
from types import TracebackType
from typing import Self, final

from binsight.decoding import batched
from binsight.errors import BadSettings, CannotBeDone, StoreHeld, StoreUnavailable
from binsight.records import StoreInfo
from binsight.store import shown_url
from binsight.store.alias import Alias, moved
from binsight.store.base import VectorStore

FOLLOW_S = 2.0  # within which those who look at an alias see that it moved
LEASE_S = 120.0  # a hold ends by itself if its owner was killed
FILLING_S = 15.0  # the same of a store that is being filled
_TOGETHER = 1000


def exchange(alias: Alias, source: VectorStore, target: VectorStore, *, name: str, former: str) -> None:
    """Let an alias name the target, `name`, in place of `source`, `former`, as they are. Raises as `replace_behind`."""
    with replacing(alias, source, name, former=former):
        hold_for_followers(target, alias)
        for store in (source, target):
            store.follow("")
        alias.point_at(name, former=former)


def expect_named(alias: Alias, former: str) -> None:
    """Raise CannotBeDone unless the alias still names that store."""
    if (now := alias.target()) != former:
        raise moved(shown_url(alias.url), former, now)


def hold_for_followers(target: VectorStore, alias: Alias) -> None:
    """Refuse the writes of all until everybody who follows the alias, about to name this store, knows that it does."""
    why = "it has just taken the place of another store; try again"
    target.hold_writes(why, for_s=FOLLOW_S, joining=alias.name)


@contextmanager
def replacing(alias: Alias, source: VectorStore, name: str, *, former: str) -> Iterator[Held]:
    """Writes to the source, held inside; taken again only while the alias names it, whatever becomes of this process.

    Another who is about to replace it is waited for, as long as a killed one's hold lasts.
    """
    look = partial(expect_named, alias, former)
    held = Held(source, f"it is being replaced by {name}; try again in a moment", LEASE_S, look, leaving=alias.name)
    try:
        held.take()
        yield held
    finally:
        held.release()


@final
class Held:
    """Writes to a store, refused for as long as its owner lives and says so.

    look: raises where the store is not to be held any more. leaving: the alias that is about to name another one.
    """

    def __init__(self, store: VectorStore, why: str, lease_s: float, look: Callable[[], None], *, leaving: str) -> None:
        self._store, self._why, self._lease_s, self._look, self._leaving = store, why, lease_s, look, leaving
        self._until = 0.0

    def take(self) -> None:
        """From now on they are refused. Raises StoreHeld when another holds the store for longer than a killed one would."""
        _patiently(self._take, self._lease_s)

    def _take(self) -> None:
        self._look()
        self.renew()

    def renew(self) -> None:
        """Raises CannotBeDone when it came too late, for somebody may have written."""
        now = monotonic()
        if self._until - now > 0.75 * self._lease_s:
            return
        self._store.hold_writes(self._why, for_s=self._lease_s, leaving=self._leaving)
        if self._until and monotonic() > self._until:
            raise CannotBeDone(f"writes could not be held for longer than {self._lease_s:g} s; run it again, it goes on")
        self._until = now + self._lease_s

    def release(self) -> None:
        if self._until:
            _release(self._store)


@final
class Filling:
    """A store that nobody but its owner fills, from another one; a context manager.

    look: raises where it is not to be filled any more.
    """

    def __init__(
        self, source: VectorStore, target: VectorStore, model: StoreInfo, *, look: Callable[[], None] = lambda: None
    ) -> None:
        self._source, self._target, self._model, self._look = source, target, model, look
        self._renewed = 0.0
        self._is_handed_over = False

    def __enter__(self) -> Self:
        """Raises ModelMismatch; BadSettings where the target holds what the source does not, and was not filled from it
        before, or holds mostly such things: they would be deleted; StoreHeld where somebody else goes on filling it."""
        self._target.expect(self._model)
        held = len(self._target)
        unknown = sum(map(len, unknown_ids(self._source, self._target))) if held else 0
        if unknown > (held // 2 if self._target.follows == _id(self._source) else 0):
            raise BadSettings(f"{unknown} of the {held} items of the new store are not in the former one; give an empty one")
        _patiently(self.renew, FILLING_S)
        try:
            self._look()  # who filled it before us may have been done, and writers of it since
            self._target.follow(_id(self._source))
        except BaseException:
            _release(self._target)
            raise
        return self

    def renew(self) -> None:
        """Raises StoreHeld where it came too late, and somebody else fills the store now."""
        if monotonic() - self._renewed > FILLING_S / 4:
            self._target.hold_writes("it is being filled from another store", for_s=FILLING_S, but_mine=True)
            self._renewed = monotonic()

    def hand_over(self, *, is_whole: bool) -> None:
        """The target leads from now on: read again into the source, its deletions are taken over, and not the other way.

        is_whole: whether the target got all that the source holds; what it did not was not deleted.
        """
        self._target.follow("")
        self._source.follow(_id(self._target) if is_whole else "")
        self._is_handed_over = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._is_handed_over:
            _release(self._target)


def _patiently(hold: Callable[[], None], lease_s: float) -> None:
    """Hold a store, as soon as another's hold is over: one that was killed leaves it for as long as that."""
    deadline = monotonic() + lease_s
    while True:
        try:
            return hold()
        except StoreHeld:
            if monotonic() > deadline:
                raise
            sleep(0.2)


def _release(store: VectorStore) -> None:
    with suppress(StoreHeld, StoreUnavailable):  # another's by now; or out of reach, and ends by itself
        store.release_writes()


def unknown_ids(source: VectorStore, target: VectorStore) -> Iterator[list[str]]:
    """Ids of the target that the source does not hold."""
    for items in batched(target.scan(), _TOGETHER):
        ids = [item.id for item in items]
        gone = [one for one, known in zip(ids, source.get(ids), strict=True) if known is None]
        if gone:
            yield gone


def _id(store: VectorStore) -> str:
    return str(store.info.detail["id"])
