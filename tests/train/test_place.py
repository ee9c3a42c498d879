"""Where a run writes: one run at a time, and what cannot work is said before the first epoch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from binsight.cli import run
from binsight.errors import BadSettings, BadSource, CannotBeDone
from binsight.train.config import TrainConfig
from binsight.train.place import disk_errors, held
from binsight.train.run import find_lr, train
from tests.model_folders import make_model_folder
from tests.train.drawn import classed, counted, settings


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def counts(tmp_path: Path) -> dict[str, Any]:
    return counted(tmp_path / "counts")


HOLDER = """
import json, sys
from binsight.train.config import TrainConfig
from binsight.train.place import disk_errors, held
with held(TrainConfig.checked(json.loads(sys.argv[1])), resume=False):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_run_into_the_same_place_is_refused_until_the_first_is_gone(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "m", epochs=1)
    command = [sys.executable, "-c", HOLDER, json.dumps(config.to_json())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(CannotBeDone, match=rf"process {first.pid} trains into .*m\.run; wait for it to end"):
            train(config)
        first.kill()  # as a crash: nobody tidies up
    train(config)
    assert (config.out / "model.safetensors").exists()


def test_a_place_where_nothing_was_written_is_left_as_it_was(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "m", data=str(tmp_path / "nowhere"))
    with pytest.raises(BadSource):
        train(config)
    assert not config.run_dir.exists()


def test_a_run_that_patience_ended_is_over_when_it_is_resumed(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "m", epochs=50, patience=1, lr=0.03, ema=0.0, keep_best="last")
    report = train(config)
    assert len(report.history) < 50
    weights = load_file(config.out / "model.safetensors")
    again = train(config, resume=True)
    assert again.history == report.history
    assert again.fingerprint == report.fingerprint
    after = load_file(config.out / "model.safetensors")
    assert all(torch.equal(weights[name], after[name]) for name in weights)


@pytest.mark.parametrize(("given", "message"), [
    ({"out": Path()}, "--out: want a folder of its own, got '.'"),
    ({"out": Path("/")}, "--out: want a folder of its own"),
    ({"out": Path("x" * 300)}, "want a path that the system can look at"),
])  # fmt: skip
def test_a_place_that_cannot_be_is_refused(counts: dict[str, Any], given: dict[str, Any], message: str) -> None:
    config = settings(counts, Path("never"), epochs=1).model_copy(update=given)
    with pytest.raises(BadSettings, match=message), held(config, resume=False):
        pass


def never(trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
    raise AssertionError("it has begun to train")


class Never(lightning.Callback):
    on_train_start = staticmethod(never)  # type: ignore[assignment]  # a function of the same arguments


def test_somebody_elses_folder_is_refused_before_the_first_epoch(counts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text('{"architecture": "x"}')
    with pytest.raises(BadSettings, match="is there and is no binsight model"):
        train(settings(counts, tmp_path / "theirs"), callbacks=(Never(),))
    assert [one.name for one in (tmp_path / "theirs").iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe lic"])
def test_a_licence_that_is_no_text_is_refused_before_the_first_epoch(
    counts: dict[str, Any], tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "lic"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadSettings, match=r"--licence-file: cannot read .*lic"):
        train(settings(counts, tmp_path / "m", licence_file=file), callbacks=(Never(),))


def test_a_licence_of_two_lines_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"--licence: .*want one line"):
        TrainConfig.checked({"data": "d", "split": "s", "out": "m", "licence": "CC BY\nNC"})


def test_what_the_split_names_and_is_not_there_is_named_and_told_by_the_exit_code(
    counts: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(counts["data"]).parent
    (folder / "03.png").unlink()
    (folder / "05.png").write_bytes(b"no picture")
    options = [
        "train", "--data", counts["data"], "--split", str(counts["split"]), "--out", str(tmp_path / "m"), "--backbone",
        "test_efficientnet_ln", "--no-pretrained", "--size", "32", "--batch-size", "4", "--epochs", "1", "--device", "cpu",
        "--embedding", "8", "--precision", "fp32", "--json",
    ]  # fmt: skip
    assert run(options) == 1
    out, err = capfd.readouterr()
    assert {one["path"] for one in json.loads(out)["refused"]} == {"03.png", "05.png"}
    assert [line.split(":")[1].strip() for line in err.splitlines() if line.startswith("refused: ")] == ["03.png", "05.png"]


def test_a_random_split_with_a_picture_that_is_gone_is_measured_on_the_others(counts: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(counts["data"]).parent
    assert (
        run(["data", "split", counts["data"], "--by", "random", "--out", str(tmp_path / "r.csv"), "--fractions", "60/40"]) == 0
    )
    table = (tmp_path / "r.csv").read_text().replace(",test,", ",val,")
    (tmp_path / "r.csv").write_text(table)
    (folder / "03.png").unlink()
    said: list[str] = []
    report = train(settings(counts | {"split": tmp_path / "r.csv"}, tmp_path / "m", epochs=1), say=said.append)
    assert [one.path for one in report.refused] == ["03.png"]
    assert any("the split parts product groups" in line for line in said)


def test_a_leak_that_the_splits_own_groups_hide_is_measured_on_the_data(counts: dict[str, Any], tmp_path: Path) -> None:
    lines = counts["split"].read_text().splitlines()
    lines[2] = lines[2].replace("train", "val")  # the second picture of product P0
    alone = [line.replace(f"P{number // 2}", f"alone{number}") for number, line in enumerate(lines[1:])]
    (tmp_path / "leaks.csv").write_text("\n".join([lines[0], *alone]) + "\n")
    said: list[str] = []
    train(settings(counts | {"split": tmp_path / "leaks.csv"}, tmp_path / "m", epochs=1), say=said.append)
    assert any("the split parts product groups: 11% of the validation and test pictures" in line for line in said)


def test_a_count_that_split_and_data_contradict_is_refused(counts: dict[str, Any], tmp_path: Path) -> None:
    table = counts["split"].read_text().replace("03.png,train,P1,4", "03.png,train,P1,2")
    (tmp_path / "other.csv").write_text(table)
    said: list[str] = []
    report = train(settings(counts | {"split": tmp_path / "other.csv"}, tmp_path / "m", epochs=1), say=said.append)
    wanted = "the split says 2 items, the data say 4; make the split anew"
    assert [(one.path, one.error) for one in report.refused] == [("03.png", wanted)]
    assert f"refused: 03.png: {wanted}" in said
    assert any("15 training and 8 validation pictures" in line for line in said)


@pytest.mark.parametrize("freeze", [{"freeze": "backbone"}, {"freeze": "stages:2", "views": 2}])
def test_damaged_features_are_made_again(counts: dict[str, Any], tmp_path: Path, freeze: dict[str, Any]) -> None:
    start = make_model_folder(tmp_path / "start", size=32)
    whole = settings(counts, tmp_path / "whole", backbone=f"local-dir:{start}", pretrained=True, epochs=1, **freeze)
    train(whole)
    (file,) = (tmp_path / "cache" / "features").glob("*.npy")
    raw, sound, first = file.read_bytes(), np.load(file), load_file(tmp_path / "whole" / "model.safetensors")
    for place, damaged in enumerate((b"", raw[: len(raw) // 2], b"junk" * 99)):
        file.write_bytes(damaged)
        again = tmp_path / f"again-{place}"
        train(whole.model_copy(update={"out": again}))
        np.testing.assert_array_equal(np.load(file), sound)
        second = load_file(again / "model.safetensors")
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_learning_rate_is_looked_for_where_nothing_learns_by_steps(counts: dict[str, Any], tmp_path: Path) -> None:
    start = make_model_folder(tmp_path / "start", size=32)
    config = settings(
        counts, tmp_path / "m", backbone=f"local-dir:{start}", pretrained=True, freeze="backbone", count_head="none",
        embedding_loss="whiten", embedding_weight=1.0,
    )  # fmt: skip
    with pytest.raises(BadSettings, match="nothing learns by steps"):
        find_lr(config)


@pytest.mark.parametrize("count", [10**30, 1_000_001])
def test_a_count_beyond_all_bins_is_refused(tmp_path: Path, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    classed(tmp_path)
    rows = [{"path": f"in/few/{number:02}.png", "count": 1} for number in (0, 2, 4, 6)]
    rows.append({"path": "in/few/08.png", "count": count})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run(["data", "split", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "s.csv"), "--fractions", "50/50"]) == 1
    assert "from 0 to 1,000,000" in capfd.readouterr().err


def test_numbers_of_thousands_of_digits_are_wrong_use(
    counts: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digits = "1" * 5000
    assert run(["data", "split", counts["data"], "--out", str(tmp_path / "s.csv"), "--counts", digits]) == 2
    split = tmp_path / "long.csv"
    split.write_text(f"path,split,group,count\n00.png,train,a,{digits}\n")
    with pytest.raises(Exception, match="want a count that is a whole number") as caught:
        train(settings(counts | {"split": split}, tmp_path / "m"))
    assert type(caught.value).__name__ == "BadSource"
    assert len(capfd.readouterr().err) < 500


def test_a_full_disk_under_tensorboard_is_one_error_and_no_traceback(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def logged() -> None:
        with disk_errors(small_disk):
            writer = SummaryWriter(str(small_disk / "tensorboard"), flush_secs=0)
            for step in range(2000):
                writer.add_text("told", "x" * 1000, step)
                writer.flush()

    with pytest.raises(CannotBeDone, match=r"cannot write to .*(No space left on device|File too large)"):
        logged()
    assert capfd.readouterr().err == ""
