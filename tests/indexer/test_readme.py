"""What the indexer's README tells its reader to type is run here, on generated pictures."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from indexer.cli import run

from tests import bins
from tests.conftest import ROOT
from tests.fakes import paint
from tests.indexer.jobs import MODEL
from tests.redis_server import redis_server
from tests.s3_server import lead_to, s3_bucket

TEXT = (ROOT / "indexer/README.md").read_text()
BOTH = TEXT + (ROOT / "README.md").read_text()
BINS = bins.bins({f"{n:05}": {f"ASIN{n}": 1 + n % 3} for n in range(6)})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that README speaks of."""
    for place, name in enumerate(("ram/a.png", "ram/b.png", "cpu/c.png")):
        paint(tmp_path / "photos" / name, (60 * place, 200 - 60 * place, 30))
    bins.write(tmp_path / "bins", BINS)
    (tmp_path / "stock.csv").write_text("path,quantity\nbins/bin-images/00001.jpg,4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(*, shared: bool) -> list[list[str]]:
    blocks = re.findall(r"^```console\n(.*?)^```", BOTH, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    chosen = [line for line in lines if line.startswith("python -m indexer ") and ("redis://" in line) is shared]
    here = [re.sub(r"--model \S+", f"--model {MODEL}", line) for line in chosen]  # one that needs neither network nor time
    return [shlex.split(line)[3:] for line in here]


def test_the_commands_run_as_written(world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(commands(shared=False)) >= 10
    with s3_bucket(BINS) as address:
        lead_to(address, monkeypatch)
        for command in commands(shared=False):
            assert run(command) == 0, (command, capfd.readouterr().err)
    stores = {path.name for path in world.glob("*.s*")}
    assert {"parts.store", "stock.store", "bucket.store", "bins.store", "loaded.store", "array.store"} <= stores
    assert {"bins.shards", "parts.shards", "array.shards"} <= stores


def test_the_commands_with_redis_run_as_written(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (command,) = commands(shared=True)
    with redis_server(world / "redis") as server:
        here = [part.replace("localhost:6379", f"127.0.0.1:{server.port}") for part in command]
        assert run(here) == 0, capfd.readouterr().err


def test_every_field_of_a_report_is_explained(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "bins/bin-images", "--store", "x.store", "--model", MODEL, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    told = set(re.findall(r"`(\w+)`", TEXT[TEXT.index("| field |") :]))
    assert set(report) <= told
    assert set(report["stages"][0]) - {"stage"} <= told
