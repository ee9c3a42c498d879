"""`python -m indexer`."""

from __future__ import annotations

import sys

from indexer.cli import run

if __name__ == "__main__":
    sys.exit(run())
