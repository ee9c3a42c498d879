"""Trying a request again, a bounded number of times, with a longer pause each time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, final

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


@final
class Retries:
    """How often requests of one source were made again; used by many threads at once.

    is_final: which errors no other attempt would mend.
    """

    def __init__(self, is_final: Callable[[Exception], bool]) -> None:
        self.made = 0
        self._is_final = is_final
        self._lock = threading.Lock()
        self._given_up = threading.Event()

    def call(self, action: Callable[[], T]) -> T:
        """What the action gives; the error of the last of ATTEMPTS when none gives anything."""
        pause_s = FIRST_PAUSE_S
        for _ in range(ATTEMPTS - 1):
            try:
                return action()
            except Exception as error:
                if self._is_final(error):
                    raise
            if self._given_up.wait(pause_s):
                break
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            with self._lock:
                self.made += 1
        return action()

    def give_up(self) -> None:
        """Begin no further pause, in no thread: the next attempt is the last one."""
        self._given_up.set()
