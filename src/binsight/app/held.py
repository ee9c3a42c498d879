"""What lies in the app's folder: no more than it may hold, and nothing for longer than it is kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

MOST_BYTES = 4 << 30  # all uploads, thumbnails and tables together, and what is on its way
KEPT_S = 3600 + 1200  # Gradio throws away after an hour what it knows; what is left by then it does not
BROKEN_S = 600  # an upload that ended half-way: nothing was added to it for so long
_MEASURED_S = 5.0  # how long a measurement holds


@final
class Held:
    """Counts what a folder holds, and clears it of what nobody else throws away: uploads that broke off, tables, and folders
    that became empty. What lies there at first is kept. uploads: the folder within it that uploads come to."""

    def __init__(self, folder: Path, uploads: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._uploads, self._clock = folder, uploads, clock
        self._kept = set(folder.rglob("*"))
        self._lock = threading.Lock()
        self._coming = 0
        self._measured: tuple[float, int] | None = None

    def take(self, size: int) -> bool:
        """Whether so many bytes more have room; then they have it until they are given back."""
        with self._lock:
            if self._bytes() + self._coming + size > MOST_BYTES:
                return False
            self._coming += size
            return True

    def give_back(self, size: int) -> None:
        """What was on its way has come, or comes no more."""
        with self._lock:
            self._coming -= size
            self._measured = None

    def _bytes(self) -> int:
        now = self._clock()
        if self._measured is None or now - self._measured[0] > _MEASURED_S:
            self._measured = now, self._tidied(now)
        return self._measured[1]

    def _tidied(self, now: float) -> int:
        total = 0
        for path in sorted(self._folder.rglob("*"), reverse=True):  # a folder's content before the folder
            try:
                found = path.lstat()
                if now - found.st_mtime <= self._longest_s(path):
                    total += found.st_size
                elif path.is_dir():
                    if not any(path.iterdir()):
                        path.rmdir()
                else:
                    path.unlink()
            except FileNotFoundError:  # thrown away meanwhile
                continue
        return total

    def _longest_s(self, path: Path) -> float:
        if path in self._kept or not path.is_relative_to(self._uploads):  # what is worked on is cleared by who works
            return math.inf
        is_upload_on_its_way = path.parent == self._uploads and path.name.startswith("tmp")
        return BROKEN_S if is_upload_on_its_way else KEPT_S
