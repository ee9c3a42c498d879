"""Whole runs on drawn pictures: what they leave behind, and that they can be repeated, resumed and shared out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import binsight
from binsight.checkpoint import open_folder
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, CannotBeDone, TrainingDiverged
from binsight.network import load as load_network
from binsight.preprocess import Preprocess
from binsight.train.config import TrainConfig
from binsight.train.place import BEST, LAST
from binsight.train.run import find_lr, train
from tests.model_folders import make_model_folder
from tests.train.drawn import classed, counted, settings


def net_pixels(path: Path, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return Preprocess((side, side), interpolation="bicubic").pixels(path.read_bytes())


ALIKE = {"dropout": 0.0, "drop_path": 0.0, "mixup": 0.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "training-cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return counted(tmp_path_factory.mktemp("counts"))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return classed(tmp_path_factory.mktemp("classes"))


def weights_of(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.out / "model.safetensors")


def saved(config: TrainConfig, name: str = LAST) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(config.run_dir / name, map_location="cpu", weights_only=False)
    return found


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run_leaves_a_folder_that_embeds_and_counts_in_one_pass(counts: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []
    config = settings(counts, tmp_path / "model", licence="CC0-1.0")
    report = train(config, say=said.append)
    encoder = binsight.load_encoder(str(config.out), device="cpu", precision="fp32")
    pictures = sorted(Path(counts["data"]).parent.glob("*.png"))[:3]
    encoded = encoder.encode(pictures)
    assert encoder.info.fingerprint == report.fingerprint
    assert encoded.vectors.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-5)
    assert encoded.counts is not None
    for count in encoded.counts:
        assert len(count.probabilities) == 6
        assert sum(count.probabilities) + count.more == pytest.approx(1, abs=1e-5)
        assert count.low <= count.value <= count.high
    assert [line.split("  ")[0] for line in said[1:]] == ["epoch 1/2", "epoch 2/2"]
    assert said[0].startswith("16 training and 8 validation pictures; test_efficientnet_ln with heads embedding (8), count (7)")
    told = json.loads((config.out / "config.json").read_text(encoding="utf-8"))["training"]
    assert told["split"] == {"by": "group", "sizes": {"train": 16, "val": 8}}
    assert (told["epochs_run"], told["config"]["seed"]) == (2, 0)
    assert [one["epoch"] for one in report.history] == [0, 1]
    assert report.history[0]["accuracy_constant"] == 0.25  # counts 1 … 4, twice each
    assert list((config.run_dir / "tensorboard").glob("events.*"))


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(counts: dict[str, Any], tmp_path: Path) -> None:
    runs = [settings(counts, tmp_path / name, seed=seed, epochs=1) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    for config in runs:
        train(config)
    first, again, other = map(weights_of, runs)
    assert_same(first, again)
    assert not torch.equal(first["count.weight"], other["count.weight"])


KILLED = """
import os, signal, sys, json
import lightning
from binsight.train.config import TrainConfig
from binsight.train.run import train

class Kill(lightning.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if (trainer.current_epoch, index) == (2, 0):
            os.kill(os.getpid(), signal.SIGKILL)

train(TrainConfig.checked(json.loads(sys.argv[1])), callbacks=(Kill(),))
"""


@pytest.mark.torture
def test_a_killed_run_ends_as_an_undisturbed_one(counts: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 4, "patience": 9, "warmup": 0.2}  # with mixup, dropout, averaged weights
    whole, killed = settings(counts, tmp_path / "whole", **options), settings(counts, tmp_path / "killed", **options)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps(killed.to_json())], env=os.environ, stderr=subprocess.PIPE, text=True
    ) as process:
        report = train(whole)
        _, told = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, told
    assert [one["epoch"] for one in saved(killed)["history"]] == [0, 1]
    assert not killed.out.exists()
    with pytest.raises(BadSettings, match="holds an earlier run; go on with --resume, or give another --out"):
        train(killed)
    with pytest.raises(BadSettings, match=r"--lr was 0\.001, got 0\.01; give another --out to start anew"):
        train(killed.model_copy(update={"lr": 0.01}), resume=True)
    took_s = saved(killed)["took_s"]
    resumed = train(killed, resume=True)
    assert (
        json.loads((killed.out / "config.json").read_text())["training"]["took_s"] > took_s + 0.5 * resumed.took_s > took_s > 0
    )
    assert_same(weights_of(whole), weights_of(killed))
    for part in ("state_dict", "current_model_state"):
        assert_same(saved(whole)[part], saved(killed)[part])
    assert resumed.history == report.history
    assert resumed.fingerprint == report.fingerprint
    again = train(killed, resume=True)  # killed after its last epoch, it would have nothing left but its folder to write
    assert (again.fingerprint, again.history) == (report.fingerprint, report.history)
    (killed.run_dir / LAST).write_bytes((killed.run_dir / LAST).read_bytes()[:1000])
    with pytest.raises(BadSettings, match=r"last\.ckpt is no checkpoint of this version, or damaged"):
        train(killed, resume=True)


def test_without_an_earlier_run_there_is_nothing_to_resume(counts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"nothing to resume: .* holds no last\.ckpt; start without --resume"):
        train(settings(counts, tmp_path / "model"), resume=True)


def test_a_folder_that_is_no_model_is_not_overwritten(counts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(BadSettings, match="letters is there and is no binsight model; give a new folder"):
        train(settings(counts, tmp_path / "letters"))


# ---- what learns


def test_a_frozen_backbone_keeps_its_weights_and_statistics(
    counts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    start = make_model_folder(tmp_path / "start", size=32)  # with batch norm
    options: dict[str, Any] = {"backbone": f"local-dir:{start}", "pretrained": True, "freeze": "backbone"}
    config = settings(counts, tmp_path / "model", **options)
    train(config)
    (features,) = (tmp_path / "cache" / "features").glob("*.npy")
    assert np.load(features).shape[:2] == (24, 2)
    theirs, ours = load_file(start / "model.safetensors"), weights_of(config)
    kept = {name: value for name, value in ours.items() if name.startswith("backbone.")}
    assert any(name.endswith("running_mean") for name in kept)
    for name, value in kept.items():
        wanted = theirs[name.removeprefix("backbone.")]
        assert torch.equal(value, wanted.to(value.dtype)), name
    before = features.stat().st_mtime_ns
    train(settings(counts, tmp_path / "again", **options))
    assert features.stat().st_mtime_ns == before
    assert_same(weights_of(settings(counts, tmp_path / "again", **options)), ours)
    whole = features.read_bytes()
    features.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # noticed, and computed again
    train(settings(counts, tmp_path / "once more", **options))
    assert features.read_bytes() == whole


def test_the_first_stages_keep_their_weights_and_statistics(counts: dict[str, Any], tmp_path: Path) -> None:
    start = make_model_folder(tmp_path / "start", size=32)
    config = settings(
        counts, tmp_path / "model", backbone=f"local-dir:{start}", pretrained=True, freeze="stages:2", ema=0.0, epochs=1
    )
    train(config)
    theirs, ours = load_file(start / "model.safetensors"), weights_of(config)
    same = {
        name: torch.equal(value, theirs[name.removeprefix("backbone.")].to(value.dtype))
        for name, value in ours.items()
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    }
    frozen = [name for name in same if name.startswith(("backbone.conv_stem", "backbone.bn1", "backbone.blocks.0"))]
    assert any(name.endswith("running_mean") for name in frozen)
    assert all(same[name] for name in frozen)
    assert not same["backbone.conv_head.weight"]


def test_a_finer_last_map_is_part_of_the_model(counts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    start = make_model_folder(tmp_path / "start", size=32)
    config = settings(counts, tmp_path / "model", backbone=f"local-dir:{start}", pretrained=True, stride=16, epochs=1)
    train(config)
    backbone = load_network(open_folder(config.out)).backbone
    assert backbone.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (2, 2)  # type: ignore[operator]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    ours, torchs = (load_encoder(str(config.out), runtime=one).encode_pixels(pixels) for one in ("openvino", "torch"))
    np.testing.assert_allclose(ours.vectors, torchs.vectors, atol=2e-3)


def test_a_frozen_backbone_of_random_numbers_is_refused(counts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="--freeze backbone wants a backbone with weights"):
        train(settings(counts, tmp_path / "model", freeze="backbone"))


def test_a_crop_is_refused_where_items_are_counted(counts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="--crop loses items, and this run counts them"):
        train(settings(counts, tmp_path / "model", crop=0.5))


def test_a_run_in_which_nothing_learns_is_refused(counts: dict[str, Any], tmp_path: Path) -> None:
    start = make_model_folder(tmp_path / "start", size=32)
    with pytest.raises(BadSettings, match="nothing learns: a frozen backbone without heads"):
        train(
            settings(
                counts, tmp_path / "model", backbone=f"local-dir:{start}", pretrained=True, freeze="backbone", embedding=0,
                count_head="none",
            )
        )  # fmt: skip


def test_an_ordinal_head_counts_and_counts_beyond_it_are_said(counts: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []
    config = settings(counts, tmp_path / "model", count_head="corn", max_count=3, embedding_weight=0, epochs=1)
    train(config, say=said.append)
    assert "6 pictures show more than 3 items (up to 4): they are learnt as one outcome, `more`" in said
    assert weights_of(config)["count.weight"].shape[0] == 4
    told = json.loads((config.out / "config.json").read_text(encoding="utf-8"))["heads"]
    assert (told["count"]["kind"], told["count"]["max_count"]) == ("corn", 3)
    assert "embedding" not in told


def test_class_folders_give_a_label_head(classes: dict[str, Any], tmp_path: Path) -> None:
    config = settings(classes, tmp_path / "model", epochs=12, ema=0.5, lr=3e-3, mixup=0.0)
    report = train(config)
    encoded = binsight.load_encoder(str(config.out), device="cpu", precision="fp32").encode(
        sorted((Path(classes["data"]) / "many").glob("*.png"))[:2]
    )
    assert encoded.counts is None
    assert encoded.labels is not None
    assert report.figures["label_constant"] == 0.5
    assert report.figures["label_accuracy"] > 0.85  # one item or eight: not hard
    assert 0 < report.figures["label_nll"] < math.log(2)  # that of knowing nothing
    assert report.figures["label_spread"] > 0.1
    assert 0.1 < report.figures["embedding_spread"] <= 1


def test_where_no_pictures_belong_together_no_embedding_is_made_up(tmp_path: Path) -> None:
    counts = counted(tmp_path / "alone")
    table = Path(counts["data"])
    table.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()))  # without products
    said: list[str] = []
    config = settings(counts, tmp_path / "model", epochs=1)
    train(config, say=said.append)
    assert sum("no two training pictures share a product, class or group" in line for line in said) == 1
    assert "embedding.weight" not in weights_of(config)
    assert train(settings(counts, tmp_path / "model", epochs=1), resume=True).figures["accuracy"] >= 0
    with pytest.raises(BadSettings, match="no two training pictures share a product"):
        train(settings(counts, tmp_path / "other", epochs=1, pooling="pyramid"))
    with pytest.raises(BadSettings, match="--keep-best embedding: this run trains no such head, only count"):
        train(settings(counts, tmp_path / "other", epochs=1, keep_best="embedding"))


# ---- when it ends


def test_it_stops_early_without_progress(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "model", epochs=9, patience=2, lr=1e-12, ema=0.0)
    report = train(config)
    assert len({one["score"] for one in report.history}) == 1  # so small a rate changes no float32
    assert len(report.history) == 3


def test_what_is_kept_are_the_averaged_weights_of_the_best_epoch(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "model", ema=0.9)
    train(config)
    best = saved(config, "best.ckpt")
    kept = weights_of(config)["count.weight"]
    assert torch.equal(kept, best["state_dict"]["net.count.weight"].to(kept.dtype))
    assert not torch.equal(kept, best["current_model_state"]["net.count.weight"].to(kept.dtype))


class Poison(lightning.Callback):
    """Breaks a weight after some steps, as a rate too high would."""

    def __init__(self, epoch: int, *, at_end: bool) -> None:
        self.epoch, self.at_end = epoch, at_end

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, int(self.at_end)):
            with torch.no_grad():
                pl_module.net.count.weight.fill_(float("nan"))


@pytest.mark.parametrize("at_end", [False, True])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(
    counts: dict[str, Any], tmp_path: Path, at_end: bool
) -> None:
    config = settings(counts, tmp_path / "model", epochs=3, ema=0.0)
    with pytest.raises(TrainingDiverged) as caught:
        train(config, callbacks=(Poison(1, at_end=at_end),))
    what = r"(count) is no number in epoch 2, validation step 0" if at_end else "the loss is nan in epoch 2, step 1"
    assert what in str(caught.value)
    assert f"{config.run_dir / LAST} holds the last good epoch, 1; start again with a lower --lr" in str(caught.value)
    assert ".png" in str(caught.value)
    assert len(saved(config)["history"]) == 1
    assert all(bool(torch.isfinite(value).all()) for value in saved(config)["state_dict"].values())
    assert not config.out.exists()


def test_the_learning_rate_finder_gives_a_rate_in_its_range(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "model")
    rate = find_lr(config)
    assert 1e-6 < rate < 1
    assert list(tmp_path.iterdir()) == []
    assert find_lr(config) == rate


def test_a_profile_is_written_beside_the_checkpoints(counts: dict[str, Any], tmp_path: Path) -> None:
    config = settings(counts, tmp_path / "model", epochs=1, profile="simple")
    train(config)
    (file,) = config.run_dir.glob("*profile*.txt")
    assert "run_training_batch" in file.read_text(encoding="utf-8")


# ---- many processes


@pytest.mark.torture
@pytest.mark.parametrize("head", ["corn", "softmax"])
def test_two_processes_learn_what_one_does(counts: dict[str, Any], tmp_path: Path, head: str) -> None:
    """Also where they do not have as much to learn: of some pictures no count is known, and large ones say more to CORN."""
    manifest = Path(counts["data"]).with_name("some.csv")
    header, *rows = Path(counts["data"]).read_text(encoding="utf-8").splitlines()
    named = [row.split(",") for row in rows]
    some = [f"{path},{'' if place % 5 == 0 else count},{products}" for place, (path, count, products) in enumerate(named)]
    manifest.write_text("\n".join([header, *some]) + "\n", encoding="utf-8")
    source = counts | {"data": str(manifest)}
    alone = settings(source, tmp_path / "alone", positives=1.0, count_head=head, **ALIKE)
    shared = alone.model_copy(update={"out": tmp_path / "shared", "devices": 2})
    one, two = train(alone), train(shared)
    assert len(two.history) == 2
    for mine, theirs in zip(one.history, two.history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert mine["count_nll"] == pytest.approx(theirs["count_nll"], rel=1e-3)
    start = saved(alone)["current_model_state"]
    other = saved(shared)["current_model_state"]
    for name, value in start.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=2e-4, msg=name)
    assert two.warnings == one.warnings
    assert two.figures["count_nll"] == pytest.approx(one.figures["count_nll"], rel=1e-2)


class Kill(lightning.Callback):
    """Ends the second process in the third epoch, as the kernel does where memory is short."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, trainer.global_rank) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.torture
def test_two_processes_one_of_which_was_killed_go_on_and_end_as_undisturbed(counts: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 4, "devices": 2, "warmup": 0.2}
    whole, killed = settings(counts, tmp_path / "whole", **options), settings(counts, tmp_path / "killed", **options)
    report = train(whole)
    with pytest.raises(CannotBeDone, match=r"a process of the training was ended by SIGKILL: .* Go on with --resume"):
        train(killed, callbacks=(Kill(),))
    assert [one["epoch"] for one in saved(killed)["history"]] == [0, 1]
    assert not killed.out.exists()
    resumed = train(killed, resume=True)
    assert_same(weights_of(whole), weights_of(killed))
    assert (resumed.history, resumed.fingerprint) == (report.history, report.fingerprint)


@pytest.mark.torture
def test_an_error_of_a_spawned_process_is_the_error_it_was(
    counts: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = settings(counts, tmp_path / "model", devices=2, epochs=1, ema=0.0, **(ALIKE | {"mixup": 1.0}))
    with pytest.raises(TrainingDiverged, match=r"validation step 0 .*no epoch was whole before; start again"):
        train(config, callbacks=(Poison(0, at_end=True),))
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if "Terminating process" not in line]  # torch's, of the other process
    assert (out, lines) == ("", [])  # neither advice nor a traceback


@pytest.mark.parametrize("pooling", ["mean", "pyramid"])
def test_a_closed_form_embedding_finds_what_shares_a_product(counts: dict[str, Any], tmp_path: Path, pooling: str) -> None:
    folder = make_model_folder(tmp_path / "base", size=96)
    config = settings(
        counts, tmp_path / "m", backbone=f"local-dir:{folder}", pretrained=True, size=96, freeze="backbone", count_head="none",
        embedding_loss="whiten", embedding_weight=1.0, pooling=pooling,
    )  # fmt: skip
    report = train(config)
    assert report.figures["score"] == report.figures["recall@1"]
    said = json.loads((config.out / "config.json").read_text())
    assert said["pooling"] == ("pyramid" if pooling == "pyramid" else "default")
    encoder = binsight.load_encoder(str(config.out), device="cpu", precision="fp32")
    vectors = encoder.encode(sorted(Path(counts["data"]).parent.glob("*.png"))).vectors
    assert vectors.shape == (24, 8)
    assert np.linalg.matrix_rank(vectors - vectors.mean(0)) == 8


def test_a_closed_form_wants_a_frozen_backbone(counts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="--freeze backbone"):
        train(settings(counts, tmp_path / "m", embedding_loss="whiten", embedding_weight=1.0))


@pytest.mark.parametrize(("head", "figure"), [("count", lambda found: found["accuracy"] - found["rmse_mean"] / 2),
                                              ("embedding", lambda found: found["recall@1"])])  # fmt: skip
def test_the_epoch_kept_is_the_best_of_the_named_head(
    counts: dict[str, Any], tmp_path: Path, head: str, figure: Callable[[dict[str, Any]], float]
) -> None:
    report = train(settings(counts, tmp_path / "m", keep_best=head, epochs=3))
    for one in report.history:
        assert one["score"] == pytest.approx(figure(one))
    assert report.figures["score"] == pytest.approx(max(one["score"] for one in report.history), abs=0.05)


@pytest.mark.parametrize("changed", [{"freeze": "stages:1", "precision": "bf16"}, {"precision": "fp32"}])
def test_batch_norms_keep_what_they_learnt_where_the_first_layers_computed_in_float32(
    counts: dict[str, Any], tmp_path: Path, changed: dict[str, Any]
) -> None:
    config = settings(counts, tmp_path / "m", backbone="resnet10t", epochs=1, **changed)
    train(config)
    kept = torch.load(config.run_dir / BEST, weights_only=False)["state_dict"]
    norms = {name: value for name, value in weights_of(config).items() if name.endswith(("running_mean", "running_var"))}
    assert norms
    assert_same(norms, {name: kept[f"net.{name}"] for name in norms})


def test_batch_norms_that_learnt_in_bfloat16_are_measured_on_training_pictures_as_they_are(
    counts: dict[str, Any], tmp_path: Path
) -> None:
    config = settings(counts, tmp_path / "m", backbone="resnet10t", precision="bf16", epochs=1, augment=2.0, mixup=1.0)
    train(config)
    net = load_network(open_folder(config.out))
    pictures = sorted(Path(counts["data"]).parent.glob("*.png"))[:16]  # the training part, one batch
    pixels = torch.from_numpy(np.stack([net_pixels(path, config.size) for path in pictures]))
    seen: list[torch.Tensor] = []
    first = net.get_submodule("backbone.layer1.0.conv1")
    first.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    with torch.inference_mode():
        net(pixels)
    norm = net.get_submodule("backbone.layer1.0.bn1")
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=0.02, atol=2e-3)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(("given", "message"), [
    ({"keep_best": "label"}, "--keep-best label: this run trains no such head, only count, embedding"),
    ({"pooling": "pyramid", "embedding": 0}, "--pooling pyramid is of the embedding head"),
])  # fmt: skip
def test_a_setting_that_would_do_nothing_is_refused(
    counts: dict[str, Any], tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadSettings, match=message):
        train(settings(counts, tmp_path / "m", **given))
