"""What glibc does with large blocks of memory once they are freed. Where there is another C library, nothing changes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # malloc.h
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
_DEFAULTS = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10}  # mallopt(3)
_TOLD = ("MALLOC_", "GLIBC_TUNABLES")


def give_back_large_blocks() -> None:
    """From now on, blocks of a megabyte and more go back to the system when they are freed: for a server.

    By itself glibc keeps blocks of up to 32 MB once it has freed one of that size, and after a flood of uploads a process holds
    ten times what it uses.
    """
    _set({_MMAP_THRESHOLD: 2**20})


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While it lasts, freed blocks stay with the process, whose next step wants as much again: for training. Then they go back.

    By itself glibc gives each feature map back and fetches the next one anew, page by page and zeroed: on two cores more than
    half of the time of a network's wide first layers (LOG.md, 2026-11-22). Nothing changes where the environment (`MALLOC_…`,
    `GLIBC_TUNABLES`) has told glibc what to do.
    """
    if any(name.startswith(_TOLD) for name in os.environ) or not _set(_KEPT):
        yield
        return
    try:
        yield
    finally:
        _set(_DEFAULTS)
        ctypes.CDLL(None).malloc_trim(0)


def _set(options: Mapping[int, int]) -> bool:
    """Whether there is somebody to tell."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    for option, value in options.items():
        mallopt(option, value)
    return True
