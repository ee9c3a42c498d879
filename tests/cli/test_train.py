"""`binsight train` as a user types it: what is wrong is one clear line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from binsight.cli import run
from tests.conftest import ROOT
from tests.train.drawn import classed, counted

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "training-cache"))


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return counted(tmp_path_factory.mktemp("counts"))


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    def call(source: dict[str, Any], *others: str) -> tuple[int, str, str]:
        capfd.readouterr()
        small = [
            "--backbone",
            "test_efficientnet_ln",
            "--no-pretrained",
            "--size",
            "32",
            "--batch-size",
            "8",
            "--device",
            "cpu",
        ]
        small += ["--embedding", "8", "--max-count", "5", "--epochs", "1", "--precision", "fp32"]
        where = ["--data", str(source["data"]), "--split", str(source["split"]), "--out", str(tmp_path / "model")]
        return run(["train", *where, *small, *others]), *capfd.readouterr()

    return call


def interrupted_after(line_start: str, *options: str) -> tuple[int, str]:
    """Exit code and what stderr said of a run that is interrupted once it has told such a line."""
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & ignores it
    program += "from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", program, *options], stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr is not None
        told = ""
        for line in job.stderr:
            is_first = f"\n{line_start}" not in f"\n{told}"
            told += line
            if is_first and line.startswith(line_start):
                job.send_signal(signal.SIGINT)
    return job.returncode, told


def test_an_interrupt_ends_with_130_and_the_run_can_go_on(
    counts: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [
        "train", "--data", str(counts["data"]), "--split", str(counts["split"]), "--out", str(tmp_path / "m"), "--backbone",
        "test_efficientnet_ln", "--no-pretrained", "--size", "32", "--batch-size", "8", "--device", "cpu", "--epochs", "16",
        "--embedding", "8", "--precision", "fp32", "--threads", "1",
    ]  # fmt: skip
    code, told = interrupted_after("epoch 2/", *options)
    assert code == 130, told
    assert "Traceback" not in told
    assert "epoch 16/16" not in told
    assert not (tmp_path / "m").exists()
    capfd.readouterr()
    assert run([*options, "--resume"]) == 0
    told = capfd.readouterr().err
    assert "epoch 1/16" not in told
    assert "epoch 16/16" in told
    assert (tmp_path / "m" / "model.safetensors").exists()


@pytest.mark.torture
def test_an_interrupted_search_for_a_learning_rate_leaves_nothing(counts: dict[str, Any], tmp_path: Path) -> None:
    options = [
        "train", "--data", str(counts["data"]), "--split", str(counts["split"]), "--out", str(tmp_path / "lr"), "--backbone",
        "resnet50", "--no-pretrained", "--size", "160", "--batch-size", "8", "--device", "cpu", "--find-lr",
        "--embedding", "8", "--precision", "fp32", "--threads", "1",
    ]  # fmt: skip
    code, told = interrupted_after("Finding best initial lr", *options)
    assert code == 130, told
    assert "Traceback" not in told
    assert not list(tmp_path.glob("lr*"))


def fails(result: tuple[int, str, str], *said: str, codes: tuple[int, ...] = (2,)) -> None:
    code, out, err = result
    assert (code in codes, out) == (True, ""), (code, err)
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("binsight: ")]
    assert lines == err.splitlines()[-1:], err
    for part in said:
        assert part in lines[0]


def test_a_run_reports_as_json_and_as_a_line(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    code, out, err = shell(counts, "--json", "--threads", "1")
    torch.set_num_threads(threads)
    assert code == 0, err
    report = json.loads(out)
    assert report["model"] == str(tmp_path / "model")
    assert [one["epoch"] for one in report["history"]] == [0]
    kept = json.loads((tmp_path / "model.run" / "report.json").read_text(encoding="utf-8"))
    assert kept == report
    assert all(isinstance(value, int | float) for value in report["figures"].values())
    assert "epoch 1/1  loss " in err
    assert "warning" not in err.replace("warning: the count head gives one count", "")
    fails(shell(counts), "holds an earlier run; go on with --resume, or give another --out")
    code, out, _ = shell(counts, "--resume", "--threads", "1")
    torch.set_num_threads(threads)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'model'}: accuracy ")


def test_data_that_is_not_there(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    fails(shell({**counts, "data": tmp_path / "nowhere"}), "nowhere")


def test_a_split_that_is_not_there(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    fails(shell({**counts, "split": tmp_path / "no.csv"}), "cannot read the split", "no.csv: No such file or directory")


def test_a_split_of_other_pictures(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("path,split,group,count\na.png,train,1,1\nb.png,val,2,1\n", encoding="utf-8")
    result = shell({**counts, "split": tmp_path / "other.csv"})
    fails(result, "want train and val pictures of", "got none; make them with `binsight data split --fractions 60/20/20`")
    assert "warning: 2 of 2 pictures of" in result[2]


def test_of_a_split_into_train_and_test_a_tenth_of_the_training_groups_validates(
    shell: Shell, counts: dict[str, Any], tmp_path: Path
) -> None:
    split = tmp_path / "split.csv"
    assert run(["data", "split", counts["data"], "--out", str(split), "--fractions", "80/20"]) == 0
    code, _, err = shell({**counts, "split": split})
    assert code == 0
    assert "has no val part: 2 of its training pictures choose and calibrate, and are not learnt from" in err


def test_a_split_without_training_pictures(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    text = counts["split"].read_text(encoding="utf-8").replace(",train,", ",test,")
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    fails(shell({**counts, "split": tmp_path / "split.csv"}), "want train and val pictures", "got test, val")


def test_validation_pictures_without_counts(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    root = Path(counts["data"]).parent
    rows = Path(counts["data"]).read_text(encoding="utf-8").splitlines()
    lines = ["path,count,label", *(f"{row.split(',')[0]},{row.split(',')[1]}," for row in rows[1:17])]
    lines += [f"{row.split(',')[0]},,some" for row in rows[17:]]
    (root / "partly.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = {"data": root / "partly.csv", "split": counts["split"]}
    fails(shell(source, "--label-weight", "0"), "no validation picture in", "has a count to choose the best epoch by")


def test_a_class_without_a_training_picture(shell: Shell, tmp_path: Path) -> None:
    fails(shell(classed(tmp_path / "data", val_only="rare")), "the class 'rare' has no training picture in")


def test_a_split_that_leaks_is_warned_of(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    lines = counts["split"].read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2].replace("train", "val")  # the second picture of product P0
    (tmp_path / "leaks.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, _, err = shell({**counts, "split": tmp_path / "leaks.csv"}, "--batch-size", "5000")
    assert "warning: the split parts product groups: 11% of the validation and test pictures" in err  # one of nine


def test_a_batch_larger_than_the_data(shell: Shell, counts: dict[str, Any], tmp_path: Path) -> None:
    fails(shell(counts, "--batch-size", "17"), "want at least one batch of 17 training pictures, got 16")
    assert not (tmp_path / "model").exists()


def test_a_batch_that_devices_cannot_share(shell: Shell, counts: dict[str, Any]) -> None:
    fails(shell(counts, "--batch-size", "9", "--devices", "2"), "each of 2 processes the same 2 or more, got 9")


def test_a_class_set_for_a_count_head_alone(shell: Shell, tmp_path: Path) -> None:
    only_count = ("--label-weight", "0", "--embedding-weight", "0")
    fails(shell(classed(tmp_path / "data"), *only_count), "nothing to learn:", "neither counts nor classes for the heads")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--freeze", "everything"), "--freeze"),
        (("--freeze", "stages:99"), "want to freeze at most the"),
        (("--backbone", "resnet51"), "knows no architecture 'resnet51'; near: "),
        (("--backbone", "local-dir:/nowhere/at/all"), "/nowhere/at/all"),
        (("--count-head", "poisson"), "--count-head: Input should be 'softmax', 'corn' or 'none', got 'poisson'"),
        (("--lr", "-1"), "--lr: Input should be greater than 0, got -1.0"),
        (("--lr", "nan"), "--lr"),
        (("--dropout", "1"), "--dropout: Input should be less than 1, got 1.0"),
        (("--epochs", "0"), "--epochs: Input should be greater than or equal to 1, got 0"),
        (("--size", "8"), "--size: Input should be greater than or equal to 32, got 8"),
        (("--profile", "deep"), "--profile: Input should be "),
        (("--precision", "fp16"), "want --precision bf16 or fp32 on a CPU"),
        (("--resume",), "nothing to resume"),
        (("--licence-file", "/nowhere/LICENCE"), "--licence-file: cannot read /nowhere/LICENCE: No such file"),
        (("--freeze", "backbone"), "--freeze backbone wants a backbone with weights"),
        (
            ("--backbone", str(ROOT / "models/bins-mobilenetv2"), "--pretrained"),
            "bins-mobilenetv2 was joined from several models, each with a backbone of its own; train on one of those",
        ),
    ],
)
def test_options_that_cannot_be_meant(shell: Shell, counts: dict[str, Any], options: tuple[str, ...], said: str) -> None:
    fails(shell(counts, *options), said)


def test_a_device_that_is_not_there(shell: Shell, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fails(shell(counts, "--device", "cuda"), "torch sees no CUDA device; take --device cpu", codes=(3,))


def test_the_learning_rate_finder_prints_an_option(shell: Shell, counts: dict[str, Any]) -> None:
    code, out, err = shell(counts, "--find-lr", "--json")
    assert code == 0, err
    assert 1e-6 < json.loads(out)["lr"] < 1
