"""The command line: one thin command a verb; data to stdout, everything else to stderr."""

from __future__ import annotations

from binsight.cli.main import main, run

__all__ = ["main", "run"]
