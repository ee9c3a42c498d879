"""What goes wrong in training without an error: said once each, while there is still time to stop."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import lightning
import torch
from torch.optim import Optimizer

from binsight.network import layer_groups
from binsight.train.module import BinModule
from binsight.train.quiet import hush

Say = Callable[[str], None]
EVERY = 50  # steps between two looks at the gradients, or an epoch where it has fewer
EXPLODING, VANISHING = 1e3, 1e-8  # norms of a group's gradient; before clipping
DEAD = 1e-4  # spread of what a head says over all pictures
_HEADS = {"logits_spread": "count head", "label_spread": "class head", "embedding_spread": "embedding"}
PATIENCE = 5  # epochs in which validation gets worse while training gets better


@final
class Watch(lightning.Callback):
    """Warns of exploding and vanishing gradients, dead heads, overfitting and collapse; one line an epoch to `say`."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.warned: list[str] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a spawned process: as quiet as in the one that it came from."""
        if multiprocessing.current_process().name != "MainProcess":  # parent_process() is not known yet
            hush()
        self.__dict__.update(state)

    def warn(self, kind: str, message: str) -> None:
        """Say it when it is the first of its kind."""
        if kind not in self.warned:
            self.warned.append(kind)
            self._say(f"warning: {message}")

    def state_dict(self) -> dict[str, Any]:
        return {"warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.warned = list(state_dict["warned"])

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        del optimizer
        every = min(EVERY, int(trainer.num_training_batches))
        if trainer.global_step % every or trainer.global_rank or not isinstance(pl_module, BinModule):
            return
        groups = layer_groups(pl_module.net)
        norms = [_norm([value.grad for _, value in group if value.grad is not None]) for group in groups]
        if not any(norms):  # a step without a loss: none of its pictures had a positive
            return
        for depth, (group, norm) in enumerate(zip(groups, norms, strict=True)):
            if norm is None:
                continue
            where = f"stage {depth} ({group[0][0]} …), step {trainer.global_step}"
            if not math.isfinite(norm) or norm > EXPLODING:
                self.warn("exploding", f"gradients explode: norm {norm:.3g} in {where}; lower --lr or --clip")
            elif norm < VANISHING:
                self.warn("vanishing", f"gradients vanish: norm {norm:.3g} in {where}; that part hardly learns")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not isinstance(pl_module, BinModule) or not pl_module.history or trainer.global_rank:
            return
        history = pl_module.history
        self._say(epoch_line(history[-1], trainer.max_epochs or 0))
        last = history[-1]
        if last.get("collapsed"):
            self.warn("collapse", "the count head gives one count for nearly all pictures: it has learnt nothing yet")
        for spread, head in _HEADS.items():
            if last.get(spread, 1.0) < DEAD:
                self.warn(f"dead {head}", f"the {head} says the same of every picture: it is dead; lower --lr")
        if is_overfitting(history):
            self.warn("overfitting", f"validation has got worse for {PATIENCE} epochs while training gets better: overfitting")


def _norm(gradients: list[torch.Tensor]) -> float | None:
    if not gradients:
        return None
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients])))


def is_overfitting(history: list[dict[str, Any]]) -> bool:
    """Whether the training loss fell over the last epochs, and a head's validation loss has its best before them."""
    if len(history) <= PATIENCE:
        return False
    before, recent = history[:-PATIENCE], history[-PATIENCE:]
    falls = recent[-1]["loss"] is not None and before[-1]["loss"] is not None and recent[-1]["loss"] < before[-1]["loss"]
    told = [name for name in ("count_nll", "label_nll") if all(name in one for one in history)]
    return bool(falls and any(min(one[name] for one in recent) > min(one[name] for one in before) for name in told))


def epoch_line(figures: Mapping[str, Any], epochs: int) -> str:
    """The figures of one epoch beside the constant answer's."""
    parts = [f"epoch {figures['epoch'] + 1}/{epochs}"]
    if figures.get("loss") is not None:
        parts.append(f"loss {figures['loss']:.3f}")
    return "  ".join([*parts, *told(figures)])


def told(figures: Mapping[str, Any]) -> list[str]:
    """What validation says of each head, beside the constant answer."""
    parts = []
    if "accuracy_constant" in figures:
        parts.append(f"accuracy {figures['accuracy']:.1%} (constant {figures['accuracy_constant']:.1%})")
        parts.append(f"RMSE {figures['rmse_mean']:.3f} (constant {figures['rmse_constant']:.3f})")
    if "label_accuracy" in figures:
        parts.append(f"classes {figures['label_accuracy']:.1%} (constant {figures['label_constant']:.1%})")
    if "recall@1" in figures:
        parts.append(f"recall@1 {figures['recall@1']:.1%}")
    return parts


def no_better(figures: Mapping[str, Any]) -> str:
    """Which heads say no more than one answer for all pictures would; empty where each does."""
    heads = []
    if "accuracy_constant" in figures and figures["accuracy"] <= figures["accuracy_constant"]:
        heads.append("counts")
    if "label_accuracy" in figures and figures["label_accuracy"] <= figures["label_constant"]:
        heads.append("classes")
    return f"its {' and '.join(heads)} are no better than one answer for all pictures" if heads else ""


def averaging(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """An exponential moving average that starts short: the n-th update keeps min(decay, (1 + n) / (10 + n))."""
    return partial(_average, decay=decay)  # and no closure: it goes to the processes of `--devices`


def _average(kept: torch.Tensor, new: torch.Tensor, updates: torch.Tensor | int, *, decay: float) -> torch.Tensor:
    if not kept.is_floating_point():  # batch counters
        return new
    n = float(updates)
    return kept.lerp(new, 1 - min(decay, (1 + n) / (10 + n)))
