"""A store by its alias: answers come from whichever store the alias names, without a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from binsight.app.backend import Backend, Health, shown_name
from binsight.app.survey import Survey
from binsight.errors import BinsightError
from binsight.following import Followed
from binsight.images import ImageLike
from binsight.records import Answer, Count, Item, StoreInfo

_LOOK_S, _LOOK_AGAIN_S = 0.5, 5.0  # between looks at the alias; after one that could not be followed
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lent:
    """One backend and how many calls are using it."""

    backend: Backend
    users: int = 0
    is_former: bool = False


@final
class FollowedStore(Backend):
    """The backend of the store behind a URL. When the alias there moves, the next one takes over once it is open and warm, and
    the former one is closed after its last running call. While the next one cannot be opened, the former one answers on.

    open_at: opens one, for the URL of a store itself.
    """

    def __init__(self, url: str, open_at: Callable[[str], Backend]) -> None:
        self._url, self._open_at = url, open_at
        self._followed = Followed(url)
        self._lock = threading.Lock()
        self._now = _Lent(self._followed.open(open_at))
        self._why_not_moved = ""
        self._is_ending = threading.Event()
        self._watch = threading.Thread(target=self._follow, name="alias", daemon=True)
        if self._followed.is_alias:
            self._watch.start()

    @property
    def name(self) -> str:
        with self._asked() as backend:
            return f"{backend.name}, which {shown_name(self._url)} names" if self._followed.is_alias else backend.name

    def find(self, photo: ImageLike, *, k: int, where: str | None) -> Answer:
        with self._asked() as backend:
            return backend.find(photo, k=k, where=where)

    def like(self, item_id: str, *, k: int, where: str | None) -> Answer:
        with self._asked() as backend:
            return backend.like(item_id, k=k, where=where)

    def count(self, photo: ImageLike) -> Count:
        with self._asked() as backend:
            return backend.count(photo)

    def item(self, item_id: str) -> Item | None:
        with self._asked() as backend:
            return backend.item(item_id)

    def info(self) -> StoreInfo:
        with self._asked() as backend:
            return backend.info()

    def survey(self) -> Survey:
        with self._asked() as backend:
            return backend.survey()

    def check(self) -> Health:
        with self._asked() as backend:
            found = backend.check()
        if not self._why_not_moved:
            return found
        return Health(False, f"{self._why_not_moved}; answers come from the former store. {found.told}")

    def close(self) -> None:
        self._is_ending.set()
        if self._watch.is_alive():
            self._watch.join()
        self._now.backend.close()
        self._followed.close()

    @contextmanager
    def _asked(self) -> Iterator[Backend]:
        with self._lock:
            lent = self._now
            lent.users += 1
        try:
            yield lent.backend
        finally:
            with self._lock:
                lent.users -= 1
                is_over = lent.is_former and not lent.users
            if is_over:
                lent.backend.close()

    def _follow(self) -> None:
        while not self._is_ending.wait(_LOOK_AGAIN_S if self._why_not_moved else _LOOK_S):
            try:
                if self._followed.has_moved():
                    self._move()
                self._why_not_moved = ""
            except Exception as error:  # noqa: BLE001, told on the screen; the former store answers on
                told = f"The alias, or the store behind it, cannot be opened: {error}"
                if told != self._why_not_moved:
                    _log.warning(told, exc_info=None if isinstance(error, BinsightError | OSError) else error)
                self._why_not_moved = told

    def _move(self) -> None:
        fresh = _Lent(self._followed.open(self._open_at))
        with self._lock:
            former, self._now = self._now, fresh
            former.is_former = True
            is_over = not former.users
        if is_over:
            former.backend.close()
