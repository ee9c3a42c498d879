"""Freed memory that a process keeps for a time."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

import pytest

from binsight.heap import freed_memory_kept

BLOCK = 64 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives every large block back")


def faults() -> int:
    """Pages that writing to a block of 64 MB fetches from the system, when one as large was freed before it."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

    def use() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(BLOCK)
        ctypes.memset(block, 1, BLOCK)
        libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    use()
    return use()


def test_what_the_environment_says_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with freed_memory_kept():
        assert faults() > BLOCK // resource.getpagesize() / 2


def test_a_freed_block_is_used_again_and_given_back_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    pages = BLOCK // resource.getpagesize()
    with freed_memory_kept():
        assert faults() < pages / 10
    assert faults() > pages / 2
