"""`binsight tune`: what it prints and answers."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import typer

from binsight.cli.tune import tune
from binsight.errors import BadSettings
from tests.train.tuning import arguments, write_data


def call(*given: str) -> int:
    app = typer.Typer()
    app.command("tune")(tune)
    return int(app(args=list(given), standalone_mode=False) or 0)


def test_a_search_prints_its_trials_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path)
    assert call(*arguments(tmp_path, "--trials=1")[1:]) == 0
    out, err = capsys.readouterr()
    header, row, *_ = out.splitlines()
    assert header.split() == ["trial", "state", "score", "accuracy", "rmse", "recall@1", "lr", "dropout"]
    assert row.split()[:2] == ["0", "complete"]
    assert f"best: trial 0; binsight train --from-study '{tmp_path}/study.log#s'" in out
    assert "study s: 0 of 1 trials are finished" in err
    assert call(*arguments(tmp_path, "--trials=2", "--json")[1:]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "study s: 1 of 2 trials are finished" in err
    assert report["trials"] == {"complete": 2, "pruned": 0, "failed": 0, "killed": 0, "running": 0}
    assert report["best"]["score"] == max(row["score"] for row in report["rows"])
    assert report["importances"] is None  # two trials say nothing
    assert json.loads((tmp_path / "out/best.json").read_text()) == report["best"]
    assert set(report["files"]) == {
        str(tmp_path / "out" / name) for name in ("trials.csv", "best.json", "history.png", "slices.png")
    }


def test_show_space_prints_toml_and_needs_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--show-space") == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["lr"] == {"type": "float", "low": 0.001, "high": 0.1, "log": True}
    assert shown["epochs"] == {"type": "int", "low": 10, "high": 20}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--data=x"], "tune wants --split, --study, --storage, --out too"),
        (["--set=lr"], "--set: want NAME=VALUE, got 'lr'"),
        (["--set=seed=3"], "--set seed: has an option of its own, --seed"),
        (["--set=clip=3", "--set=clip=4"], "--set clip: given twice"),
        (["--set=nothing=3"], "--nothing: Extra inputs are not permitted"),
        (["--set=lr=fast"], "--lr: Input should be a valid number.* got 'fast'"),
        (["--pruner=hard"], "--pruner: want median, halving, none, got 'hard'"),
        (["--space=narrow"], "no such search space: narrow"),
    ],
)
def test_a_wrong_call_is_told(tmp_path: Path, given: list[str], told: str) -> None:
    whole = [] if given[0].startswith("--data") else [f"--{name}={tmp_path / name}" for name in ("data", "split", "out")]
    whole += ["--study=s", "--storage=l"] if whole else []
    with pytest.raises(BadSettings, match=told):
        call(*whole, *given)
