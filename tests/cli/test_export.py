"""`binsight export`: both formats answer as torch does, and say how nearly."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from binsight import network
from binsight.checkpoint import Checkpoint, Heads, open_folder
from binsight.cli.export import export
from binsight.counting import Calibration
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, BinsightError, CannotBeDone, MissingExtra
from tests.model_folders import make_binsight_folder

HEADS = Heads(16, Calibration("corn", 5), ("a", "b", "c"))


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(export)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], standalone_mode=False)


def refused(kind: type[BinsightError], message: str, *arguments: object) -> None:
    with pytest.raises(kind, match=message):
        raise run(*arguments).exception or AssertionError("it was not refused")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    return make_binsight_folder(tmp_path / "m", HEADS)[0]


def test_onnx_answers_as_torch_does_in_batches_of_any_size(model: Checkpoint, tmp_path: Path) -> None:
    result = run("--model", model.folder, "--format", "onnx", "--out", tmp_path / "out", "--json")
    assert result.return_value == 0, result.exception
    told = json.loads(result.stdout)
    assert told["outputs"] == {"embedding": 16, "count": 6, "label": 3}
    assert told["fingerprint"] == model.fingerprint
    assert told["largest_difference"] == max(told["difference"].values()) < 1e-4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "onnx.json"]
    onnxruntime = importlib.import_module("onnxruntime")  # untyped
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    net = network.load(open_folder(model.folder))
    for n in (1, 5):
        pixels = network.example_pixels((64, 64), n)
        wanted = network.answers_of(net, pixels)
        for name, came in zip(told["outputs"], session.run(list(told["outputs"]), {"pixels": pixels.numpy()}), strict=True):
            np.testing.assert_allclose(came, wanted[name], atol=1e-4)


def test_openvino_is_put_where_loading_finds_it(model: Checkpoint, tmp_path: Path) -> None:
    result = run("--model", model.folder, "--format", "openvino")
    assert result.return_value == 0, result.exception
    assert f"{model.folder / 'openvino'}: openvino, pixels to embedding (16), count (6), label (3)" in result.stdout
    assert "largest difference to torch " in result.stdout
    load_encoder(str(model.folder), device="cpu")
    assert not (tmp_path / "cache").exists()


def test_something_else_is_not_overwritten(model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for to in ("onnx", "openvino"):
        wanted = "photos is there and is no export; give another with --out"
        refused(BadSettings, wanted, "--model", model.folder, "--format", to, "--out", tmp_path / "photos")
        blocked = tmp_path / "photos" / "a.jpg" / "out"
        refused(CannotBeDone, "cannot write the export", "--model", model.folder, "--format", to, "--out", blocked)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_what_cannot_be_exported_is_refused_with_the_next_step(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(
        BadSettings, "is no network, so there is nothing to export", "--model", "binsight:colour-layout", "--format", "onnx"
    )
    refused(BadSettings, "resnet50 is no folder; say with --out", "--model", "resnet50", "--format", "onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(
        MissingExtra,
        r"onnx is not installed; run: pip install 'binsight\[train\]'",
        "--model",
        model.folder,
        "--format",
        "onnx",
    )
