"""The demonstration's network: what it is taught from, how it learns, and the model that comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from binsight.data.parts import catalogue
from binsight.data.warehouse import fill_bins
from binsight.demo_pictures import BinJob, draw_bins, draw_parts
from binsight.demo_training import JUDGING_SEED, TRAINING_SEED, Recipe, Trained, contrastive_loss, lessons, train_demo_model
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, CannotBeDone

JOB = BinJob(catalogue_seed=0, seed=5, bins=17, views=2, taken=1, size_px=96)
TINY = Recipe(bins=16, part_views=2, epochs=3, bins_at_once=8, parts_at_once=4)


@dataclass(frozen=True)
class Run:
    trained: Trained
    said: list[str]
    random_before: torch.Tensor
    random_after: torch.Tensor


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    said: list[str] = []
    before = torch.get_rng_state()
    trained = train_demo_model(tmp_path_factory.mktemp("model") / "model", seed=3, recipe=TINY, say=said.append)
    return Run(trained, said, before, torch.get_rng_state())


def test_pictures_do_not_depend_on_how_many_processes_draw_them() -> None:
    alone_drawn: list[tuple[int, int]] = []
    together_drawn: list[tuple[int, int]] = []
    alone = draw_bins(JOB, workers=1, progress=lambda *done: alone_drawn.append(done))
    together = draw_bins(JOB, workers=2, progress=lambda *done: together_drawn.append(done))
    assert alone_drawn == [(n, JOB.bins) for n in range(1, JOB.bins + 1)]
    assert together_drawn == sorted(together_drawn)
    assert together_drawn[-1] == (JOB.bins, JOB.bins)
    for name in ("pixels", "counts", "things"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))


def test_each_bin_is_drawn_with_its_count_and_once_more_with_an_item_less() -> None:
    drawn = draw_bins(JOB, workers=1)
    wanted = [
        (number, count)
        for number, bin_ in enumerate(fill_bins(catalogue(0), JOB.bins, seed=JOB.seed))
        for count in (bin_.count, bin_.count, *([bin_.count - 1] if bin_.count else []))
    ]
    assert list(zip(drawn.things.tolist(), drawn.counts.tolist(), strict=True)) == wanted


def test_a_drawing_process_that_fails_is_one_clear_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CannotBeDone, match="a process that draws pictures ended with 1"):
        draw_bins(BinJob(0, 5, 16, 1, 0, size_px=1), workers=2)
    assert "want size_px from 96" in capfd.readouterr().err


def test_parts_are_drawn_in_order_each_as_often_as_asked() -> None:
    drawn = draw_parts(catalogue(0)[:3], seed=1, views=2, size_px=96)
    assert drawn.things.tolist() == [0, 0, 1, 1, 2, 2]
    assert drawn.pixels.shape == (6, 96, 96, 3)
    assert not np.array_equal(drawn.pixels[0], drawn.pixels[1])


def test_no_bin_is_shared_by_warehouse_training_and_calibration() -> None:
    parts = catalogue(0)
    seeds = [{bin_.seed for bin_ in fill_bins(parts, 400, seed=seed)} for seed in (0, TRAINING_SEED, JUDGING_SEED)]
    assert len(set.union(*seeds)) == sum(map(len, seeds)) == 1200


def test_lessons_hold_what_the_recipe_says_at_the_models_size() -> None:
    drawn = lessons(0, TINY)
    assert sorted(set(drawn.bins.things.tolist())) == list(range(16))
    assert len(drawn.parts.pixels) == 2 * len(catalogue(0))
    assert drawn.judged.pixels.shape == (30, 96, 96, 3)
    np.testing.assert_array_equal(drawn.judged.counts, [b.count for b in fill_bins(catalogue(0), 30, seed=JUDGING_SEED)])


def test_the_contrastive_loss_of_two_pairs_at_right_angles_is_as_by_hand() -> None:
    embeddings = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    loss = contrastive_loss(embeddings, torch.tensor([0, 0, 7, 7]), temperature=0.5)
    assert float(loss) == pytest.approx(math.log(math.exp(2) + 2) - 2)  # each: −log(e² / (e² + 2 e⁰))


def test_the_contrastive_loss_without_any_pair_is_nothing() -> None:
    embeddings = torch.eye(3, requires_grad=True)
    loss = contrastive_loss(embeddings, torch.tensor([0, 1, 2]), temperature=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


@pytest.mark.parametrize(("bins", "epochs"), [(0, 1), (1, 0)])
def test_a_recipe_without_bins_or_epochs_is_refused(bins: int, epochs: int) -> None:
    with pytest.raises(BadSettings, match=f"at least 1 training bin and 1 epoch, got {bins} and {epochs}"):
        Recipe(bins=bins, epochs=epochs)


def test_the_loss_falls(done: Run) -> None:
    losses = [float(line.rsplit(" ", 1)[1]) for line in done.said if "loss" in line]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_training_leaves_the_callers_random_numbers_alone(done: Run) -> None:
    assert torch.equal(done.random_before, done.random_after)


def test_the_model_runs_from_its_own_folder_and_counts(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path))
    encoder = load_encoder(str(done.trained.model.folder), device="cpu")
    said = encoder.encode([np.zeros((50, 80, 3), np.uint8)])
    assert said.counts is not None
    assert (said.vectors.shape, len(said.counts[0].probabilities)) == ((1, 128), 10)
    assert list(tmp_path.iterdir()) == []  # nothing was exported into the user's cache


def test_the_same_seed_gives_the_same_model(done: Run, tmp_path: Path) -> None:
    again = train_demo_model(tmp_path / "model", seed=3, recipe=TINY, say=lambda _: None)
    assert again.model.identity == done.trained.model.identity


def test_the_model_says_that_it_has_seen_drawn_pictures_only(done: Run) -> None:
    folder = done.trained.model.folder
    assert "on drawn pictures only" in (folder / "README.md").read_text()
    training = json.loads((folder / "config.json").read_text())["training"]
    assert (training["data"], training["seed"], training["recipe"]["bins"]) == ("drawn by `binsight demo`", 3, 16)


def test_what_was_learned_from_is_told_as_it_was(done: Run) -> None:
    bins = fill_bins(catalogue(3), 16, seed=3 + TRAINING_SEED)
    pictures = sum(3 if bin_.count else 2 for bin_ in bins) + 2 * len(catalogue(3))
    told = done.trained.to_json()
    assert (told["bins"], told["pictures"], told["epochs"]) == (16, pictures, 3)
