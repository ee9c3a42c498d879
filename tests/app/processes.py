"""`binsight app` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def started(
    *arguments: str | Path, cache: Path, program: Path | None = None, told: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, IO[str]]]:
    """The process, its URL, and what it writes to stderr after it. program: a script in its place. told: its environment."""
    code = [program] if program is not None else ["-c", "from binsight.cli import main; main()", "app"]
    process = subprocess.Popen(
        [sys.executable, *code, *arguments, "--port", "0"],
        env=os.environ | {"BINSIGHT_CACHE": str(cache)} | dict(told or {}), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    errors = process.stderr
    assert errors is not None
    try:
        line = errors.readline()
        found = re.search(r"http://\S+?:\d+", line)
        assert found, line + errors.read()
        yield process, found[0], errors
    finally:
        process.kill()
        process.wait(20)
        errors.close()
