"""What one training step and one validation do, for Lightning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast, final

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from binsight.counting import Calibration, CountKind, outcomes
from binsight.errors import TrainingDiverged
from binsight.evaluate import Figures, collapse
from binsight.evaluate_count import UP_TO, constant_figures, ranged
from binsight.evaluate_retrieval import retrieve
from binsight.network import BinNet, layer_groups
from binsight.train.augment import DRAWS, augment
from binsight.train.config import TrainConfig
from binsight.train.datamodule import UNKNOWN, BinData, Examples
from binsight.train.losses import EmbeddingLoss, corn_loss, soft_targets, softmax_loss
from binsight.train.stages import FrozenStages, cut
from binsight.vectors import normalise

Said = dict[str, Tensor]


@final
class BinModule(lightning.LightningModule):
    """A BinNet that learns. `history` holds the figures of each epoch; `score` of the best one is what is kept."""

    def __init__(self, net: BinNet, examples: Examples, config: TrainConfig, *, is_search: bool = False) -> None:
        super().__init__()
        self.net = net
        self.config = config
        self.lr = config.lr  # a field of its own: the learning-rate finder changes it
        self.history: list[Figures] = []
        self.began = time.perf_counter()  # of a resumed run: as if it had not been interrupted
        self._examples = examples
        self._stages = halves_of(net, config)
        self._forward: Callable[[Tensor], Said] = net.forward_planes
        self._learning: Callable[[Tensor], Tensor] = net.backbone
        if config.compile:
            self._forward, self._learning = torch.compile(net.forward_planes), torch.compile(net.backbone)
        self._targets = soft_targets(config.max_count + 2, config.count_spread)
        self._embedding_loss: EmbeddingLoss | None = None
        if config.embedding_weight and config.embedding_loss != "whiten":
            self._embedding_loss = EmbeddingLoss(config.embedding_loss)
        self._records = examples.records if config.records_weight else None
        if self._records is not None:  # in no BinNet: it is not kept
            self.record_head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(net.pooled_dim, self._records.width))
        self._is_search = is_search  # for a learning rate: a loss that is no number ends it, and is no error
        self._losses: list[float] = []
        self._said: list[dict[str, NDArray[Any]]] = []

    # ---- learning

    def on_train_epoch_start(self) -> None:
        self._losses = []
        data = cast(BinData, self.trainer.datamodule)  # type: ignore[attr-defined]  # Lightning sets it
        if data.batches is not None:
            data.batches.set_epoch(self.current_epoch)

    def training_step(self, batch: Said, index: int) -> Tensor | None:
        """Everything random in it follows from seed, epoch and step, so that resuming repeats it.

        Seeded at the epoch's start it would not: loaders draw a seed too, in a resumed run before that.
        """
        torch.manual_seed(_seed(self.config.seed, self.current_epoch, index, self.global_rank + 1))
        generator = torch.Generator().manual_seed(_seed(self.config.seed, self.current_epoch, index, 77))
        said, mixed, order = self._answer(batch, generator)
        losses = self._losses_of(said, batch, mixed, order)
        loss = torch.stack([weight * value for weight, value in losses.values()]).sum()
        if not bool(torch.isfinite(loss)):
            if self._is_search:
                self.trainer.should_stop = True
                return None
            raise self._diverged(f"the loss is {float(loss.detach())}", f"step {index}", batch)
        self._losses.append(float(loss.detach()))
        self.log_dict({f"loss/{name}": value.detach() for name, (_, value) in losses.items()})
        if "embedding" in self.net.sizes and "embedding" not in losses:  # DDP wants a gradient for every weight, each step
            loss = loss + 0.0 * said["embedding"].sum()
        return loss

    def _diverged(self, what: str, where: str, batch: Said) -> TrainingDiverged:
        rate = self.optimizers().param_groups[-1]["lr"]  # type: ignore[union-attr]
        last = self.config.run_dir / "last.ckpt"
        kept = f"{last} holds the last good epoch, {self.current_epoch}" if last.exists() else "no epoch was whole before"
        return TrainingDiverged(
            f"{what} in epoch {self.current_epoch + 1}, {where} (learning rate {rate:.2g}; first picture "
            f"{self._examples.names[int(batch['row'][0])]}); {kept}; start again with a lower --lr"
        )

    def _answer(self, batch: Said, generator: torch.Generator) -> tuple[Said, float, Tensor]:
        """The network's answer; how much of each picture is its own (1: not mixed), and with which one it was mixed."""
        config, inputs = self.config, batch["input"]
        n, world, rank = len(inputs), self.trainer.world_size, self.global_rank
        draws = torch.rand(n * world, DRAWS, generator=generator)[rank::world]
        mixes = "count" in self.net.sizes or "label" in self.net.sizes  # the embedding loss takes no mixed pictures
        is_mixed = mixes and bool(torch.rand((), generator=generator) < config.mixup)
        share = float(np.random.default_rng(generator.initial_seed()).beta(0.4, 0.4)) if is_mixed else 1.0
        order = torch.arange(n - 1, -1, -1, device=inputs.device)
        if inputs.dtype == torch.uint8:
            with torch.autocast(inputs.device.type, enabled=False):
                planes = inputs.permute(0, 3, 1, 2).float()
                planes = augment(planes, draws.to(inputs.device), strength=config.augment, crop=config.crop)
                planes = self.net.planes(planes.permute(0, 2, 3, 1))
                if is_mixed:
                    planes = planes * share + planes[order] * (1 - share)
            planes = planes.contiguous(memory_format=torch.channels_last)
            if self._stages is None:
                return self._whole(planes), share, order
            return self._of_maps(self._stages.maps(planes)), share, order
        views = (draws[:, 0] * inputs.shape[1]).long().to(inputs.device)
        kept = inputs[torch.arange(n, device=inputs.device), views].float()
        if is_mixed:
            kept = kept * share + kept[order] * (1 - share)
        return (self._told(kept) if kept.ndim == 2 else self._of_maps(kept)), share, order

    def _whole(self, planes: Tensor) -> Said:
        return self._forward(planes) if self._records is None else self._told(self.net.features(planes))

    def _told(self, features: Tensor) -> Said:
        """What the heads say of features, in training also of what the records say."""
        said = self.net.answers(features)
        if self._records is None or not self.training:
            return said
        with torch.autocast(features.device.type, enabled=False):
            return said | {"records": self.record_head(features[:, : self.net.pooled_dim])}

    def _of_maps(self, maps: Tensor) -> Said:
        """What the network says of what its frozen stages have computed."""
        assert self._stages is not None
        maps = maps.contiguous(memory_format=torch.channels_last)
        return self._told(self._stages.features(maps, self._learning))

    def _losses_of(self, said: Said, batch: Said, share: float, order: Tensor) -> dict[str, tuple[float, Tensor]]:
        config = self.config
        losses: dict[str, tuple[float, Tensor]] = {}
        if "count" in said:
            losses["count"] = config.count_weight, _mixed(self._count_loss, said["count"], batch["count"], share, order)
        if "label" in said:
            losses["label"] = config.label_weight, _mixed(self._label_loss, said["label"], batch["label"], share, order)
        if self._records is not None:
            losses["records"] = config.records_weight, _mixed(self._records.loss, said["records"], batch["row"], share, order)
        if self._embedding_loss is not None and share == 1.0:
            embeddings, rows = self._of_all(said["embedding"]), self._of_all(batch["row"])
            positive = torch.from_numpy(self._examples.relation.among(rows.cpu().numpy())).to(embeddings.device)
            losses["embedding"] = config.embedding_weight, self._embedding_loss(functional.normalize(embeddings), positive)
        return losses

    def _count_loss(self, logits: Tensor, counts: Tensor) -> Tensor:
        known = counts != UNKNOWN
        truth = counts[known].clamp(max=self.config.max_count + 1)
        if self.config.count_head == "corn":  # a picture with y items concerns the thresholds up to y
            terms = (truth + 1).clamp(max=logits.shape[1]).sum()
            return self._mean_of_all(corn_loss(logits[known], truth) if len(truth) else logits.sum() * 0.0, terms)
        found = softmax_loss(logits[known], truth, self._targets) if len(truth) else logits.sum() * 0.0
        return self._mean_of_all(found, known.sum())

    def _label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels != UNKNOWN
        truth = labels[known]
        smoothed = (
            functional.cross_entropy(logits[known].float(), truth, label_smoothing=0.1) if len(truth) else logits.sum() * 0.0
        )
        return self._mean_of_all(smoothed, known.sum())

    def _mean_of_all(self, mean: Tensor, terms: Tensor) -> Tensor:
        """A mean over so many terms, weighed so that the mean over processes is that over the terms of all of them."""
        if self.trainer.world_size == 1:
            return mean
        total = cast(Tensor, self.all_gather(terms.float())).sum().clamp(min=1)
        return mean * (terms * self.trainer.world_size / total)

    def _of_all(self, values: Tensor) -> Tensor:
        """The rows of all processes, each process's after the other's, with gradients."""
        if self.trainer.world_size == 1:
            return values
        gathered = cast(Tensor, self.all_gather(values, sync_grads=values.requires_grad))
        return gathered.flatten(0, 1)

    def configure_optimizers(self) -> Any:  # what Lightning takes
        groups = layer_groups(self.net)
        if self._records is not None:
            groups = [*groups[:-1], [*groups[-1], *self.record_head.named_parameters()]]
        chosen: list[dict[str, Any]] = []
        for depth, group in enumerate(groups):
            rate = self.lr * self.config.layer_decay ** (len(groups) - 1 - depth)
            for decay, is_matrix in ((self.config.weight_decay, True), (0.0, False)):
                own = [value for _, value in group if value.requires_grad and (value.ndim > 1) is is_matrix]
                if own:
                    chosen.append({"params": own, "lr": rate, "weight_decay": decay})
        optimizer = torch.optim.AdamW(chosen)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        rising = max(1, int(self.config.warmup * steps))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising)))) + 1e-3

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- looking

    def on_validation_epoch_start(self) -> None:
        self._said = []

    def validation_step(self, batch: Said, index: int) -> None:
        said = self.said_of(batch)
        if bad := [name for name, values in said.items() if not np.isfinite(values).all()]:
            raise self._diverged(f"what the network says ({bad[0]}) is no number", f"validation step {index}", batch)
        self._said.append(said)

    def said_of(self, batch: Said) -> dict[str, NDArray[Any]]:
        """What the network says of a batch that is not changed, as numpy, with its rows."""
        inputs = batch["input"]
        if inputs.dtype == torch.uint8 and self._stages is None:
            said = self.net(inputs)
        elif inputs.dtype == torch.uint8:
            assert self._stages is not None
            said = self._of_maps(self._stages.maps(self.net.planes(inputs).contiguous(memory_format=torch.channels_last)))
        else:
            first = inputs[:, 0].float()
            said = self.net.answers(first) if first.ndim == 2 else self._of_maps(first)
        return {name: value.float().cpu().numpy() for name, value in said.items()} | {"row": batch["row"].cpu().numpy()}

    def on_validation_epoch_end(self) -> None:
        said = self._gathered()
        figures = figures_of(said, self._examples, self.config, self.net)
        figures = {"epoch": self.current_epoch, "loss": self._mean_loss(), **figures}
        if not self.trainer.sanity_checking:
            self.history.append(figures)
        told = {name: value for name, value in figures.items() if isinstance(value, float) and math.isfinite(value)}
        self.log_dict({f"val/{name}": value for name, value in told.items()})
        self.log("score", figures["score"])  # the same on every process, which have gathered all answers

    def _mean_loss(self) -> float | None:
        """Over the epoch's steps and all processes."""
        if not self._losses:
            return None
        mine = torch.tensor(np.mean(self._losses), dtype=torch.float32, device=self.device)
        return float(cast(Tensor, self.all_gather(mine)).mean())

    def _gathered(self) -> dict[str, NDArray[Any]]:
        mine = {name: np.concatenate([part[name] for part in self._said]) for name in self._said[0]} if self._said else {}
        if self.trainer.world_size == 1:
            every = [mine]
        else:
            every = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(every, mine)
        every = [one for one in every if one]
        joined = {name: np.concatenate([one[name] for one in every]) for name in every[0]}
        order = np.argsort(joined["row"], kind="stable")
        return {name: values[order] for name, values in joined.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["took_s"] = time.perf_counter() - self.began
        checkpoint["config"] = self.config.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])


def halves_of(net: BinNet, config: TrainConfig) -> FrozenStages | None:
    """The network's frozen and its learning half, where it has both and they can be parted."""
    if net.pyramid is not None:  # it takes maps of both
        return None
    with torch.random.fork_rng(devices=[]):
        planes = torch.rand(2, 3, config.size, config.size, generator=torch.Generator().manual_seed(0))
        return cut(net.backbone, planes)


def figures_of(said: dict[str, NDArray[Any]], examples: Examples, config: TrainConfig, net: BinNet) -> Figures:
    """Figures of the validation pictures, each beside what one constant answer reaches; "score" is what is to grow.

    The score is the mean of: count accuracy on 0–5 minus half the RMSE of the mean, class accuracy, recall@1 — of those
    that the network answers, or the one that `config.keep_best` names.
    """
    rows = said["row"]
    found: Figures = {}
    scores: dict[str, float] = {}
    if "count" in net.sizes:
        found |= _count_figures(said["count"], examples.counts[rows], config)
        scores["count"] = found["accuracy"] - 0.5 * found["rmse_mean"]
    if "label" in net.sizes:
        found |= _label_figures(said["label"], examples.labels[rows])
        scores["label"] = found["label_accuracy"]
    if config.embedding_weight:
        vectors = normalise(said["embedding"])
        found["embedding_spread"] = float(np.sqrt(vectors.var(axis=0).sum()))  # 0: all the same; 1: in all directions
        retrieved = retrieve(vectors, _relevance(examples, rows)).figures(ks=(1, 10))
        if retrieved["queries"]:
            found |= {"recall@1": retrieved["recall@1"], "recall@10": retrieved["recall@10"]}
            scores["embedding"] = found["recall@1"]
    wanted = [scores[config.keep_best]] if config.keep_best in scores else list(scores.values())
    return found | {"score": float(np.mean(wanted)) if wanted else 0.0}


def _count_figures(logits: NDArray[Any], truth: NDArray[np.int64], config: TrainConfig) -> Figures:
    known = truth != UNKNOWN
    logits, truth = logits[known], truth[known]
    kind: CountKind = "corn" if config.count_head == "corn" else "softmax"
    calibration = Calibration(kind, config.max_count)
    probabilities = calibration.probabilities(logits)
    loss = float(-np.log(probabilities[np.arange(len(truth)), outcomes(truth, config.max_count)] + 1e-12).mean())
    up_to = min(UP_TO, config.max_count)
    inside = truth <= up_to
    if not inside.any():
        return {"count_nll": loss, "accuracy": 0.0, "rmse_mean": 0.0}
    answers = ranged(calibration.counts(logits[inside]), up_to)
    constant = constant_figures(truth[inside])
    return {
        "accuracy": float((answers.values == truth[inside]).mean()),
        "accuracy_constant": constant["accuracy"],
        "rmse": float(np.sqrt(((answers.values - truth[inside]) ** 2).mean())),
        "rmse_mean": float(np.sqrt(((answers.means - truth[inside]) ** 2).mean())),
        "rmse_constant": constant["rmse_mean"],
        "count_nll": loss,
        "logits_spread": float(logits.std(axis=0).mean()),
        "collapsed": bool(collapse(truth[inside], answers.values)["collapsed"]),
    }


def _label_figures(logits: NDArray[Any], truth: NDArray[np.int64]) -> Figures:
    known = truth != UNKNOWN  # some are: `prepare` looked
    logits, truth = logits[known], truth[known]
    return {
        "label_accuracy": float((logits.argmax(1) == truth).mean()),
        "label_constant": float(np.bincount(truth).max() / len(truth)),
        "label_nll": float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))),
        "label_spread": float(logits.std(axis=0).mean()),
    }


def _relevance(examples: Examples, rows: NDArray[np.int64]) -> Any:  # evaluate_retrieval.Relevance
    def relevant(queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        return among[queries]

    among = examples.relation.among(rows)
    return relevant


def _mixed(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, truth: Tensor, share: float, order: Tensor) -> Tensor:
    """Source: mixup, Zhang et al. 2018, arXiv:1710.09412, in its form of two losses."""
    if share == 1.0:
        return loss(logits, truth)
    return share * loss(logits, truth) + (1 - share) * loss(logits, truth[order])


def _seed(*parts: int) -> int:
    """One seed of several numbers, for torch."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
