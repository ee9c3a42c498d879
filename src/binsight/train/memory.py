"""Freed memory that the process keeps, since the next step wants as much again.

glibc gives every large block back to the system when it is freed and fetches it anew, page by page and zeroed, for the next
feature map: on two cores more than half of the time of a network's wide first layers (LOG.md, 2026-11-22).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
_DEFAULTS = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10}  # mallopt(3)
_TOLD = ("MALLOC_", "GLIBC_TUNABLES")
_GLIBC = "CS_GNU_LIBC_VERSION"


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While it lasts, freed blocks stay with the process; then they go back.

    Nothing changes without glibc, and where the environment (`MALLOC_…`, `GLIBC_TUNABLES`) has told it what to do.
    """
    if not _is_glibc() or any(name.startswith(_TOLD) for name in os.environ):
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, _KEPT)
    try:
        yield
    finally:
        _set(libc, _DEFAULTS)
        libc.malloc_trim(0)


def _is_glibc() -> bool:
    try:
        return _GLIBC in os.confstr_names and bool(os.confstr(_GLIBC))
    except (AttributeError, OSError, ValueError):  # another system or C library
        return False


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)
