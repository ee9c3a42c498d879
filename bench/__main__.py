"""Every figure of README, one bench after another: `make bench`. Quiet machines only; it takes about half an hour."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
ANYWHERE = (
    ["bench.decode"],
    ["bench.store", "--rows", "100000"],
    ["bench.store", "--rows", "1000000"],
    ["bench.start"],
    ["bench.serve"],
    ["bench.shared"],
)
WITH_REAL_PHOTOS = (["bench.model"], ["bench.ingest"], ["bench.indexer"], ["bench.real"], ["bench.accuracy"], ["bench.train"])


def main() -> int:
    argparse.ArgumentParser(prog="python -m bench", description=__doc__).parse_args()
    benches = [*ANYWHERE, *(WITH_REAL_PHOTOS if SHARED.is_dir() else ())]
    failed = [bench for bench in benches if subprocess.run([sys.executable, "-m", *bench], check=False).returncode]
    for bench in failed:
        print(f"failed: python -m {' '.join(bench)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
