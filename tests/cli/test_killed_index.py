"""R4 with an indexer: `binsight index`, killed under way while its decode threads work, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binsight.store import open_store
from tests.fakes import paint_pictures

PROGRAM = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
ENVIRONMENT = os.environ | {"BINSIGHT_BATCH_SIZE": "8", "BINSIGHT_WORKERS": "4"}


def start(pictures: Path, store: Path) -> subprocess.Popen[str]:
    arguments = ["index", str(pictures), "--store", str(store), "--model", "binsight:colour-layout", "--json"]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def journal_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in store.glob("journal-*.log"))


def kill_at(size: int, pictures: Path, store: Path) -> bool:
    """Kill an indexer once the store's journal has so many bytes; whether it was still at work then."""
    with start(pictures, store) as job:
        while job.poll() is None and journal_bytes(store) < size:
            time.sleep(0.0005)
        job.send_signal(signal.SIGKILL)
        job.communicate()
        return job.returncode == -signal.SIGKILL


def state(store: Path | str) -> dict[str, tuple[dict[str, Any], bytes]]:
    with open_store(store, read_only=True) as opened:
        assert opened.verify().problems == []
        items = list(opened.scan())
        vectors: Any = opened.vectors_of([item.id for item in items])
        return {item.id: (item.metadata, row.tobytes()) for item, row in zip(items, vectors, strict=True)}


def kill_again_and_again(folder: Path, *, kills: int, pictures: int) -> int:
    """How many of the kills met a job under way. The end is compared with one undisturbed run."""
    random = np.random.default_rng(8)
    bad = paint_pictures(folder / "pictures", pictures)
    with start(folder / "pictures", folder / "whole.store") as job:
        _, err = job.communicate()
    assert job.returncode == 1, err
    wanted = state(folder / "whole.store")
    assert len(wanted) == pictures
    size, met = journal_bytes(folder / "whole.store"), 0
    for n in range(kills):
        met += kill_at(int(size * (n + random.random()) / kills), folder / "pictures", folder / "cut.store")
        if (folder / "cut.store/CURRENT").exists():  # else it was killed before there was a store
            found = state(folder / "cut.store")
            assert found == {one: wanted[one] for one in found}
    with start(folder / "pictures", folder / "cut.store") as job:  # the lock died with its owner, threads and all
        _, err = job.communicate()
    assert job.returncode == 1, err
    assert err.count("refused: ") == bad
    assert state(folder / "cut.store") == wanted
    shutil.rmtree(folder)
    return met


def test_an_indexer_killed_under_way_ends_as_one_undisturbed(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path / "job", kills=6, pictures=400) >= 4


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_an_indexer_killed_a_hundred_times_ends_as_one_undisturbed(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path / "job", kills=100, pictures=4000) >= 90
