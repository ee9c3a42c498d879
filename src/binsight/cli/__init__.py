"""The command line: one thin command a verb; data to stdout, everything else to stderr."""

from __future__ import annotations

import sys

try:
    from binsight.cli.main import main, run
except KeyboardInterrupt:  # the imports take a quarter of a second, in which nobody else could answer it
    sys.stderr.write("binsight: interrupted\n")
    raise SystemExit(130) from None

__all__ = ["main", "run"]
