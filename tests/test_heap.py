"""Freed memory that a process keeps for a time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

PAGES = (64 << 20) // resource.getpagesize()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives every large block back")

# How many pages writing to a block of 64 MB fetches from the system, when one as large was freed before it: while freed memory
# is kept, and afterwards. In a process of its own, whose heap has no hole of that size yet.
FAULTS = """
import ctypes, resource
from binsight.heap import freed_memory_kept
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    faults()
    kept = faults()
faults()
print(kept, faults())
"""


def faults(**environment: str) -> tuple[int, int]:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=others | environment, capture_output=True, text=True, check=True)
    kept, afterwards = map(int, done.stdout.split())
    return kept, afterwards


def test_what_the_environment_says_of_it_stays() -> None:
    kept, _ = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept > PAGES / 2


def test_a_freed_block_is_used_again_and_given_back_at_the_end() -> None:
    kept, afterwards = faults()
    assert kept < PAGES / 10
    assert afterwards > PAGES / 2
