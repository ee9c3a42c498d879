"""The indexer's README explains what a job reports; its commands are run by `tests/docs/test_pages.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from indexer.cli import run

from tests import bins
from tests.conftest import ROOT
from tests.indexer.jobs import MODEL


def test_every_field_of_a_report_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "indexer/README.md").read_text(encoding="utf-8")
    bins.write(tmp_path / "bins", bins.bins({f"{n:05}": {f"ASIN{n}": 1 + n % 3} for n in range(6)}))
    monkeypatch.chdir(tmp_path)
    assert run(["run", "bins/bin-images", "--store", "x.store", "--model", MODEL, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    told = set(re.findall(r"`(\w+)`", text[text.index("| field |") :]))
    assert set(report) <= told
    assert set(report["stages"][0]) - {"stage"} <= told
