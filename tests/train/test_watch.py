"""Warnings of what goes wrong without an error: each once, and none of a healthy run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from binsight.network import BinNet, layer_groups
from binsight.train.module import BinModule
from binsight.train.watch import Watch, averaging, epoch_line, is_overfitting, no_better
from tests.train.drawn import settings
from tests.train.test_sampler import examples


class Two(torch.nn.Module):
    """A backbone of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.num_features = 4


class Run:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.watch = Watch(self.said.append)
        net = BinNet(Two(), sizes={"count": 7}, mean=(0.5,) * 3, std=(0.5,) * 3)
        config = settings({"data": "d", "split": Path("s")}, Path("o"), embedding_weight=0)
        self.module = BinModule(net, examples(), config)

    def gradients(self, size: float, *, step: int = 0, rank: int = 0, only: int | None = None, steps: int = 1000) -> None:
        """Give every weight (or those of one group) this gradient, and look."""
        trainer: Any = SimpleNamespace(global_step=step, global_rank=rank, num_training_batches=steps)
        for place, group in enumerate(layer_groups(self.module.net)):
            for _, value in group:
                value.grad = torch.full_like(value, size if only in (None, place) else 0.1)
        optimizer: Any = None
        self.watch.on_before_optimizer_step(trainer, self.module, optimizer)

    def epochs(self, *history: dict[str, Any]) -> None:
        trainer: Any = SimpleNamespace(global_rank=0, max_epochs=len(history))
        for place in range(len(history)):
            self.module.history = [{"epoch": n, **one} for n, one in enumerate(history[: place + 1])]
            self.watch.on_train_epoch_end(trainer, self.module)

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.said if line.startswith("warning: ")]


@pytest.fixture
def run() -> Run:
    return Run()


def test_gradients_that_explode_are_said_once_with_their_place(run: Run) -> None:
    run.gradients(1e4, step=50, only=1)
    run.gradients(1e5, step=100)
    (line,) = run.warnings
    assert "gradients explode: norm" in line
    assert "stage 1 (count.weight …), step 50; lower --lr or --clip" in line


def test_gradients_that_are_no_numbers_explode(run: Run) -> None:
    run.gradients(float("nan"))
    assert run.watch.warned == ["exploding"]


def test_gradients_that_vanish_are_said_once(run: Run) -> None:
    run.gradients(1e-12, only=0)
    run.gradients(1e-12, step=50, only=0)
    (line,) = run.warnings
    assert "gradients vanish: norm 4e-12 in stage 0 (backbone.layer.weight …), step 0" in line  # √16 of them


def test_healthy_gradients_a_step_without_loss_and_steps_between_are_silent(run: Run) -> None:
    run.gradients(0.01)
    run.gradients(0.0, step=50)
    run.gradients(1e9, step=51)
    run.gradients(1e9, step=100, rank=1)
    assert run.said == []


def test_epochs_of_few_steps_are_looked_at_once_each(run: Run) -> None:
    run.gradients(1e9, step=7, steps=6)
    assert run.said == []
    run.gradients(1e9, step=12, steps=6)
    assert run.watch.warned == ["exploding"]


HEALTHY = {"logits_spread": 1.0, "collapsed": False}


def test_a_dead_head_is_said_once(run: Run) -> None:
    run.epochs({"loss": 1.0, "logits_spread": 1e-6}, {"loss": 1.0, "logits_spread": 1e-6})
    (line,) = run.warnings
    assert "it is dead" in line


@pytest.mark.parametrize(
    ("spread", "told"), [("logits_spread", "count head"), ("label_spread", "class head"), ("embedding_spread", "embedding")]
)
def test_every_head_can_be_dead(run: Run, spread: str, told: str) -> None:
    run.epochs({"loss": 1.0, spread: 1e-6})
    assert run.warnings == [f"warning: the {told} says the same of every picture: it is dead; lower --lr"]


def test_collapse_is_said_once(run: Run) -> None:
    run.epochs({**HEALTHY, "loss": 1.0, "collapsed": True}, {**HEALTHY, "loss": 0.9, "collapsed": True})
    (line,) = run.warnings
    assert "one count for nearly all pictures" in line


def losses(*pairs: tuple[float, float]) -> list[dict[str, Any]]:
    return [{**HEALTHY, "loss": train, "count_nll": val} for train, val in pairs]


def test_overfitting_is_said_once_after_five_worse_epochs(run: Run) -> None:
    worse = [(1.0, 1.0), (0.9, 1.1), (0.8, 1.2), (0.7, 1.3), (0.6, 1.4), (0.5, 1.5), (0.4, 1.6)]
    assert not is_overfitting(losses(*worse[:5]))
    assert is_overfitting(losses(*worse[:6]))
    run.epochs(*losses(*worse))
    (line,) = run.warnings
    assert line.endswith("validation has got worse for 5 epochs while training gets better: overfitting")


def test_classes_are_learnt_by_heart_too() -> None:
    worse = [(1.0, 1.0), (0.9, 1.1), (0.8, 1.2), (0.7, 1.3), (0.6, 1.4), (0.5, 1.5)]
    assert is_overfitting([{"loss": train, "label_nll": val} for train, val in worse])
    assert not is_overfitting([{"loss": train, "label_nll": 1.0} for train, _ in worse])


def test_a_run_that_gets_better_is_silent(run: Run) -> None:
    run.epochs(*losses(*[(1 - 0.05 * n, 1 - 0.01 * n) for n in range(10)]))
    assert run.warnings == []
    assert len(run.said) == 10


def test_a_run_whose_training_does_not_get_better_does_not_overfit() -> None:
    assert not is_overfitting(losses(*[(1.0, 1 + 0.1 * n) for n in range(10)]))


def test_what_was_said_is_not_said_again_by_a_resumed_run(run: Run) -> None:
    run.gradients(1e9)
    other = Run()
    other.watch.load_state_dict(run.watch.state_dict())
    other.gradients(1e9)
    assert other.said == []


def test_a_line_stands_beside_the_constant_answer() -> None:
    figures = {
        "epoch": 2, "loss": 0.5, "accuracy": 0.4, "accuracy_constant": 0.25, "rmse_mean": 1.0, "rmse_constant": 1.5,
        "label_accuracy": 0.9, "label_constant": 0.5, "recall@1": 0.75,
    }  # fmt: skip
    assert epoch_line(figures, 5) == (
        "epoch 3/5  loss 0.500  accuracy 40.0% (constant 25.0%)  RMSE 1.000 (constant 1.500)  "
        "classes 90.0% (constant 50.0%)  recall@1 75.0%"
    )


def test_heads_that_learnt_nothing_are_named() -> None:
    counted = {"accuracy": 0.25, "accuracy_constant": 0.25}
    assert no_better(counted) == "its counts are no better than one answer for all pictures"
    classed = {"label_accuracy": 0.3, "label_constant": 0.5}
    assert no_better({**counted, **classed}) == "its counts and classes are no better than one answer for all pictures"
    assert no_better({"accuracy": 0.26, "accuracy_constant": 0.25, "recall@1": 0.0}) == ""


def test_the_average_starts_short_and_ends_at_its_decay() -> None:
    average = averaging(0.9)
    kept, new = torch.tensor([0.0]), torch.tensor([1.0])
    assert float(average(kept, new, 1)) == pytest.approx(1 - 2 / 11)
    assert float(average(kept, new, torch.tensor(10_000))) == pytest.approx(0.1)
    assert int(average(torch.tensor(3), torch.tensor(7), 1)) == 7
