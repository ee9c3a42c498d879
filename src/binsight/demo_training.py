"""The demonstration's network: from random numbers it learns, of drawn pictures, to find and to count, in two minutes.

It is timm's smallest residual network at half its stride, so that things of a few pixels stay apart, with two heads on the
pooled features. No Lightning and nothing of the extra `train` is needed. It knows drawn pictures only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from binsight import openvino_export
from binsight.backbone import random_config
from binsight.checkpoint import Checkpoint, Heads, NetworkConfig
from binsight.counting import Calibration, fit_calibration, logit_columns
from binsight.data.parts import catalogue
from binsight.data.warehouse import MAX_COUNT
from binsight.demo_pictures import BinJob, Drawn, Progress, draw_bins, draw_parts
from binsight.errors import BadSettings
from binsight.model_folder import write_model
from binsight.network import BinNet, build
from binsight.preprocess import Preprocess
from binsight.train.losses import soft_targets, softmax_loss

ARCHITECTURE, MODEL_ARGS = "test_resnet", {"output_stride": 16}
SIZE_PX = 96
TRAINING_SEED, JUDGING_SEED = 1_000_003, 2_000_003  # added to the warehouse's: other bins, lying and lit otherwise
Say = Callable[[str], None]
Drawing = Callable[[], AbstractContextManager[Progress]]  # what shows, for the time of its `with`, how much is drawn


@contextmanager
def not_shown() -> Iterator[Progress]:
    """For who does not look."""
    yield lambda _done, _total: None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much is drawn and how it is learned; LOG.md of 2026-11-21 says what else was tried.

    bins, views, taken and part_views: what is drawn to learn from (`demo_pictures.BinJob`). epochs: times that each bin is
    seen. bins_at_once, parts_at_once: of a step; all pictures of these bins, and two of each of these parts. rate: AdamW's
    largest learning rate. spread: of the count's soft targets. temperature and embedding_weight: of the contrastive loss.
    dim: of the vectors.
    Raises BadSettings for bins or epochs below 1.
    """

    bins: int = 1500
    views: int = 2
    taken: int = 1
    part_views: int = 12
    epochs: int = 4
    bins_at_once: int = 12
    parts_at_once: int = 12
    rate: float = 4e-3
    decay: float = 0.02
    warmup: float = 0.15
    spread: float = 0.5
    temperature: float = 0.1
    embedding_weight: float = 0.5
    dim: int = 128

    def __post_init__(self) -> None:
        if self.bins < 1 or self.epochs < 1:
            raise BadSettings(f"want at least 1 training bin and 1 epoch, got {self.bins} and {self.epochs}")

    @property
    def judged(self) -> int:
        """How many bins more are drawn, for temperature and intervals to be fixed on."""
        return max(30, 4 * self.bins // 25)


@dataclass(frozen=True, slots=True)
class Lessons:
    """What was drawn to learn from: no bin of `bins` is in `judged`, and none of either in the warehouse that is searched."""

    bins: Drawn
    parts: Drawn
    judged: Drawn


@dataclass(frozen=True, slots=True)
class Trained:
    """The model folder, and how it came about. parameters: learned numbers. pictures: drawn to learn from. took_s: drawing
    and learning."""  # fmt: skip

    model: Checkpoint
    parameters: int
    bins: int
    pictures: int
    epochs: int
    took_s: float

    def to_json(self) -> dict[str, Any]:  # JSON
        return {
            "architecture": self.model.config.architecture,
            "parameters": self.parameters,
            "bins": self.bins,
            "pictures": self.pictures,
            "epochs": self.epochs,
            "took_s": round(self.took_s, 2),
        }


def train_demo_model(folder: Path, *, seed: int, recipe: Recipe, say: Say, drawing: Drawing = not_shown) -> Trained:
    """Draw, learn, calibrate, and write the model to `folder`, with what OpenVINO runs beside it.

    seed: that of the warehouse, whose catalogue of parts is used; bins and pictures are others (`lessons`). The same seed on
    the same machine gives the same model. Raises CannotBeDone when the folder cannot be written.
    """
    started = perf_counter()
    say(f"drawing {recipe.bins} bins to learn from, and {recipe.judged} to calibrate on; none of them is in the warehouse …")
    with drawing() as progress:
        drawn = lessons(seed, recipe, progress=progress)
    config = random_config(ARCHITECTURE, Preprocess((SIZE_PX, SIZE_PX)), MODEL_ARGS)
    pictures = len(drawn.bins.pixels) + len(drawn.parts.pixels)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(seed % 2**63)
        net = build(config, {"embedding": recipe.dim, "count": logit_columns("softmax", MAX_COUNT)})
        for epoch, loss in enumerate(_learned(net, drawn, recipe, np.random.default_rng([seed, 10])), 1):
            say(f"learning from {pictures} pictures: {epoch} of {recipe.epochs} rounds, loss {loss:.2f}")
    net.eval().requires_grad_(False)
    calibration = fit_calibration(_logits(net, drawn.judged.pixels), drawn.judged.counts, kind="softmax", max_count=MAX_COUNT)
    took = perf_counter() - started
    model = _written(folder, net, config, Heads(recipe.dim, calibration), seed=seed, recipe=recipe, took_s=took)
    return Trained(model, sum(value.numel() for value in net.parameters()), recipe.bins, pictures, recipe.epochs, took)


def lessons(seed: int, recipe: Recipe, *, progress: Progress = lambda _done, _total: None) -> Lessons:
    """The pictures for a warehouse of this seed: its parts, seen anew, in bins of two other seeds. progress: of the bins.

    Those to calibrate on are drawn as large as the warehouse's own and scaled as the model will scale them.
    """
    total = recipe.bins + recipe.judged
    job = BinJob(seed, seed + TRAINING_SEED, recipe.bins, recipe.views, recipe.taken, SIZE_PX)
    bins = draw_bins(job, progress=lambda done, _: progress(done, total))
    job = BinJob(seed, seed + JUDGING_SEED, recipe.judged, views=1, taken=0, size_px=256)
    judged = draw_bins(job, progress=lambda done, _: progress(recipe.bins + done, total))
    parts = draw_parts(catalogue(seed), seed=seed + TRAINING_SEED, views=recipe.part_views, size_px=SIZE_PX)
    scale = Preprocess((SIZE_PX, SIZE_PX))
    small = np.stack([scale.pixels(picture) for picture in judged.pixels])
    return Lessons(bins, parts, Drawn(small, judged.counts, judged.things))


def contrastive_loss(embeddings: Tensor, things: Tensor, *, temperature: float) -> Tensor:
    """Small when pictures of one thing are near each other and far from those of others.

    embeddings: (n, dim), of any length. things: (n,); one that is there once is only pushed away from.
    Source: Khosla et al. 2020, arXiv:2004.11362, equation 2.
    """
    unit = functional.normalize(embeddings)
    cosines = unit @ unit.T / temperature  # (n, n)
    itself = torch.eye(len(unit), dtype=torch.bool)
    positive = (things[:, None] == things) & ~itself
    logs = cosines - torch.logsumexp(cosines.masked_fill(itself, -math.inf), dim=1, keepdim=True)
    shares = (logs * positive).sum(1) / positive.sum(1).clamp(min=1)
    return -shares[positive.any(1)].mean() if bool(positive.any()) else embeddings.sum() * 0.0


def _learned(net: BinNet, drawn: Lessons, recipe: Recipe, rng: np.random.Generator) -> Iterator[float]:
    """Train the network; gives each epoch's mean loss when the epoch is over."""
    net.train().to(memory_format=torch.channels_last)
    matrices = [value for value in net.parameters() if value.ndim > 1]
    others = [value for value in net.parameters() if value.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}], lr=recipe.rate
    )
    size = min(recipe.bins_at_once, recipe.bins)
    steps = recipe.epochs * (recipe.bins // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, recipe.warmup))
    targets = soft_targets(MAX_COUNT + 2, recipe.spread)
    starts = np.searchsorted(drawn.bins.things, np.arange(recipe.bins + 1))  # where the pictures of each bin begin
    for _ in range(recipe.epochs):
        losses = []
        order = rng.permutation(recipe.bins)
        for first in range(0, recipe.bins - size + 1, size):
            rows = np.concatenate([np.arange(starts[bin_], starts[bin_ + 1]) for bin_ in order[first : first + size]])
            loss = _loss(net, drawn, rows, recipe, targets, rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        yield float(np.mean(losses))


def _loss(net: BinNet, drawn: Lessons, rows: Any, recipe: Recipe, targets: Tensor, rng: np.random.Generator) -> Tensor:
    """Of the bins' pictures in `rows`, int64 (n,), for counts and identity, and of some pictures of parts, for identity."""
    chosen = rng.permutation(int(drawn.parts.things[-1]) + 1)[: recipe.parts_at_once]
    views = [part * recipe.part_views + rng.permutation(recipe.part_views)[:2] for part in chosen]
    part_rows = np.concatenate(views)
    pixels = torch.from_numpy(np.concatenate([drawn.bins.pixels[rows], drawn.parts.pixels[part_rows]]))
    things = torch.from_numpy(np.concatenate([drawn.bins.things[rows], recipe.bins + drawn.parts.things[part_rows]]))
    said = net.forward_planes(net.planes(pixels).contiguous(memory_format=torch.channels_last))
    counted = softmax_loss(said["count"][: len(rows)], torch.from_numpy(drawn.bins.counts[rows]), targets)
    return counted + recipe.embedding_weight * contrastive_loss(said["embedding"], things, temperature=recipe.temperature)


def _rate(step: int, steps: int, warmup: float) -> float:
    """Of the largest learning rate: rising, then half a cosine down to almost 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising)))) + 1e-3


def _logits(net: BinNet, pixels: Any) -> Any:  # numpy arrays: uint8 (n, h, w, 3) → float32 (n, outcomes)
    with torch.inference_mode():
        parts = [net(torch.from_numpy(pixels[first : first + 64]))["count"] for first in range(0, len(pixels), 64)]
    return torch.cat(parts).numpy()


def _written(
    folder: Path, net: BinNet, config: NetworkConfig, heads: Heads, *, seed: int, recipe: Recipe, took_s: float
) -> Checkpoint:
    """The model in its folder, and OpenVINO's form of it inside, so that nothing of it is kept in the user's cache."""
    assert heads.count is not None
    training = {
        "data": "drawn by `binsight demo`",
        "seed": seed,
        "took_s": round(took_s, 1),
        "recipe": asdict(recipe) | {"judged": recipe.judged},
    }
    model = write_model(
        folder, net, config, heads, training=training, licence="Apache-2.0", card=_card(seed, recipe, heads.count), half=False
    )
    try:
        size = config.preprocess.size
        openvino_export.export_to(folder / openvino_export.FOLDER, net, size=size, fingerprint=model.identity)
    except openvino_export.NotConverted:
        return model  # `load_encoder` tries too, says so, and runs it with torch
    return model


def _card(seed: int, recipe: Recipe, calibration: Calibration) -> str:
    return "\n".join([
        "# The demonstration's model", "",
        f"A binsight model: `{ARCHITECTURE}` at stride {MODEL_ARGS['output_stride']} on {SIZE_PX} × {SIZE_PX} px pictures "
        f"(squashed whole), with a {recipe.dim}-d embedding and a count head (0 … {calibration.max_count} and more).", "",
        "## Training",
        f"By `binsight demo` with seed {seed}, from random numbers, **on drawn pictures only**: {recipe.bins} bins, "
        f"{recipe.views} views of each and {recipe.taken} after an item was taken, and {recipe.part_views} views of each part, "
        f"{recipe.epochs} times. Temperature and intervals were fixed on {recipe.judged} other drawn bins. The bins that the "
        "demonstration indexes and asks for are in neither; the parts are the same, in other views.", "",
        "## Limits",
        "It shows how things fit together, and is of no use on photos: it has never seen one.", "",
    ])  # fmt: skip
