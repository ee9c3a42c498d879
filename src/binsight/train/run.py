"""One training run, from settings to a model folder."""

from __future__ import annotations

import json
import math
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from binsight import checkpoint, errors
from binsight.backbone import random_config
from binsight.checkpoint import Checkpoint, Heads, NetworkConfig
from binsight.counting import Calibration, CountKind, fit_calibration, logit_columns
from binsight.data.source import Refusal
from binsight.encoder import open_model
from binsight.errors import BadSettings, CannotBeDone, MissingExtra, UnknownModel
from binsight.evaluate import Figures
from binsight.heap import freed_memory_kept
from binsight.mixed_precision import has_bf16
from binsight.model_folder import licence_text, write_model
from binsight.network import BinNet, build, set_frozen
from binsight.preprocess import Preprocess
from binsight.train.card import model_card
from binsight.train.config import TrainConfig
from binsight.train.depthwise import strided_in_float32
from binsight.train.examples import Prepared, prepare, with_features, with_views
from binsight.train.place import BEST, LAST, Earlier, disk_errors, earlier, held
from binsight.train.whiten import fit_head

try:
    import lightning
    from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint, WeightAveraging
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
    from lightning.pytorch.utilities import rank_zero_only
except ImportError as error:
    raise MissingExtra("lightning", extra="train") from error

from binsight.train.atomic import AtomicCheckpoints
from binsight.train.datamodule import UNKNOWN, BinData, Examples
from binsight.train.module import BinModule, figures_of, halves_of
from binsight.train.quiet import quiet
from binsight.train.watch import Watch, averaging

Say = Callable[[str], None]
_VIT = "binsight_vit_"
_NO_POSITIVES = "no two training pictures share a product, class or group"
_SETTLING, _SETTLED = 2048, 64  # training pictures that batch norms are measured on, and how many at a time


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of a run: the model's folder and fingerprint, the best epoch's figures and all epochs' history.

    refused: pictures of the split that were not used, and why.
    """

    model: Path
    fingerprint: str
    figures: Figures
    history: list[Figures]
    warnings: list[str]
    images_per_s: float
    took_s: float
    refused: tuple[Refusal, ...]

    def to_json(self) -> dict[str, Any]:  # JSON values
        return {
            "model": str(self.model),
            "fingerprint": self.fingerprint,
            "figures": self.figures,
            "history": self.history,
            "warnings": self.warnings,
            "images_per_s": round(self.images_per_s, 2),
            "took_s": round(self.took_s, 2),
            "refused": [{"path": one.path, "error": one.error} for one in self.refused],
        }


def _silent(message: str) -> None:
    """Says nothing; no lambda, as it goes to the processes of `--devices`."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    say: Say = _silent,
    callbacks: tuple[Callback, ...] = (),
) -> TrainReport:
    """Train a model and write its folder.

    resume: go on from the last whole epoch of an earlier, ended or killed run into the same place; the result is that of
    an undisturbed run. say: takes the run's lines; has to be picklable with many processes on a CPU. callbacks: more of
    Lightning's, for example a study's pruning.
    Raises BadSettings, BadSource, UnknownModel; TrainingDiverged when the loss is no number; CannotBeDone (disk full, no GPU).
    """
    if getattr(rank_zero_only, "rank", 0):  # one of the processes that Lightning started; the first one holds the place
        with freed_memory_kept():
            return _train(config, earlier(config) if resume else Earlier(), resume, _silent, callbacks)
    text = licence_text(config.licence_file)
    with held(config, resume=resume) as before, freed_memory_kept():
        return _train(config, before, resume, say, callbacks, text)


def _train(
    config: TrainConfig,
    before: Earlier,
    resume: bool,
    say: Say,
    callbacks: tuple[Callback, ...],
    text: str | None = None,
) -> TrainReport:
    """As `train`, in a place that is held. text: of the licence."""
    started = time.perf_counter()
    if config.threads:
        torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    with _start_of(config) as (start, base):
        base = _base(base, config)
        prepared = prepare(config, base.preprocess, cache=checkpoint.cache_root(), say=say)
        sizes = _sizes(prepared, config)
        net = _built(base, sizes, start, config)
        examples = _inputs(prepared, net, base.preprocess, config, start, say)
    if config.embedding_loss == "whiten" and "embedding" in sizes:
        _whiten(net, prepared, examples, config)
    _say_start(prepared, net, config, say)
    with quiet():
        module, trainer, watch = BinModule(net, examples, config), *_trainer(config, say, callbacks, before)
        module.began = started - before.took_s
    data = BinData(
        examples, batch_size=config.batch_size, positives=config.positives if config.embedding_weight else 0.0,
        seed=config.seed, workers=config.workers,
    )  # fmt: skip
    data.check(config.devices * config.nodes)
    last = config.run_dir / LAST
    with quiet(), disk_errors(config.run_dir):
        fitting = time.perf_counter()
        if any(value.requires_grad for value in net.parameters()):
            start_at = str(last) if resume and last.exists() else None
            _fit(trainer, module, data, start_at)
            _take_back(module, watch, last)
        elif config.embedding_loss != "whiten":
            raise BadSettings("nothing learns: a frozen backbone without heads; give it an --embedding or another --freeze")
        fit_s = time.perf_counter() - fitting
    seen = (len(module.history) - before.epochs) * (len(examples.train) // config.batch_size) * config.batch_size
    if not trainer.is_global_zero:
        return TrainReport(config.out, "", {}, module.history, watch.warned, 0.0, time.perf_counter() - started, ())
    _load_best(net, config.run_dir)
    seen_last = prepared.examples if config.views else examples  # as photos are answered: whole, and in float32
    if halves_of(net, config) is None and _precision(config) != "32-true":
        _settle_norms(net, seen_last)
    heads, figures = _finished(net, prepared, seen_last, config)
    training = _provenance(config, prepared, figures, module.history, time.perf_counter() - module.began)
    opened = write_model(
        config.out, net, base, heads, training=training, licence=config.licence,
        card=model_card(config, base, heads, training), half=True,
        licence_text=text,
    )  # fmt: skip
    return TrainReport(
        config.out, opened.fingerprint, figures, module.history, watch.warned, seen / fit_s if fit_s else 0.0,
        time.perf_counter() - started, prepared.refused,
    )  # fmt: skip


def find_lr(config: TrainConfig, *, say: Say = _silent) -> float:
    """The learning rate at which the loss falls fastest (learning-rate range test, Smith 2017, arXiv:1506.01186)."""
    from lightning.pytorch.tuner.tuning import Tuner

    if config.threads:
        torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    with _start_of(config) as (start, base):
        base = _base(base, config)
        prepared = prepare(config, base.preprocess, cache=checkpoint.cache_root(), say=say)
        sizes = _sizes(prepared, config)
        net = _built(base, sizes, start, config)
        if config.embedding_loss == "whiten" and not sizes.keys() - {"embedding"}:
            raise BadSettings("nothing learns by steps: a whitened embedding is a closed form, and needs no learning rate")
        examples = _inputs(prepared, net, base.preprocess, config, start, say)
    module = BinModule(net, examples, config, is_search=True)
    data = BinData(examples, batch_size=config.batch_size, positives=0.0, seed=config.seed)
    steps = min(100, max(20, len(examples.train) // config.batch_size))
    with quiet(), freed_memory_kept(), tempfile.TemporaryDirectory() as kept:
        trainer = lightning.Trainer(
            **_hardware(config.model_copy(update={"devices": 1, "nodes": 1})), max_epochs=steps, limit_val_batches=0,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=kept, use_distributed_sampler=False, gradient_clip_val=config.clip or None,
        )  # fmt: skip
        with _interrupts(trainer):
            found = Tuner(trainer).lr_find(module, datamodule=data, min_lr=1e-6, max_lr=1.0, num_training=steps)
    suggested = found.suggestion() if found is not None else None
    if suggested is None:
        raise CannotBeDone("the learning-rate finder saw no falling loss; give --lr")
    return float(suggested)


# ---- before


@contextmanager
def _start_of(config: TrainConfig) -> Iterator[tuple[Checkpoint | None, NetworkConfig]]:
    """The weights to start from (None: random numbers) and the network that they are of."""
    name = config.backbone
    if name.startswith(_VIT) or (not config.pretrained and checkpoint.folder_of(name) is None):
        yield None, random_config(name.partition(".")[0], Preprocess((config.size, config.size)))
        return
    with open_model(name) as opened:
        if config.pretrained and opened.heads is not None and opened.heads.counters:
            raise BadSettings(
                f"{name} was joined from several models, each with a backbone of its own; train on one of those, or on a plain "
                f"backbone such as {opened.config.architecture}"
            )
        yield (opened if config.pretrained else None), opened.config


def _base(start: NetworkConfig, config: TrainConfig) -> NetworkConfig:
    """What is trained. Its pictures are squashed whole: a crop loses items."""
    if config.stride:
        start = replace(start, model_args={**start.model_args, "output_stride": config.stride})
    theirs = start.preprocess
    preprocess = Preprocess((config.size, config.size), "squash", 1.0, theirs.mean, theirs.std, "bicubic")
    if config.pooling == "mean":
        if start.has_pyramid:
            raise BadSettings(f"{config.backbone} has a pyramid; train on it with --pooling pyramid and an embedding")
        return replace(start, preprocess=preprocess)
    if not (config.embedding and config.embedding_weight):
        raise BadSettings("--pooling pyramid is of the embedding head: give --embedding and --embedding-weight above 0")
    return replace(start, preprocess=preprocess, pooling=checkpoint.PYRAMID)


def _sizes(prepared: Prepared, config: TrainConfig) -> dict[str, int]:
    sizes: dict[str, int] = {}
    examples = prepared.examples
    embeds = bool(config.embedding_weight) and (config.embedding_loss == "whiten" or _has_positives(examples))
    if embeds and config.embedding:
        sizes["embedding"] = config.embedding
    elif config.pooling == "pyramid":  # `_base` has seen to the rest
        raise BadSettings(f"--pooling pyramid is of the embedding head, and {_NO_POSITIVES}")
    if config.count_head != "none" and config.count_weight and bool((examples.counts != UNKNOWN).any()):
        sizes["count"] = logit_columns(config.count_head, config.max_count)
        if config.crop < 1:
            raise BadSettings("--crop loses items, and this run counts them; leave it out, or train with --count-head none")
    if prepared.classes and config.label_weight:
        sizes["label"] = len(prepared.classes)
    judged = {*sizes, "embedding"} if embeds else set(sizes)
    if config.keep_best not in ("all", "last") and config.keep_best not in judged:
        raise BadSettings(f"--keep-best {config.keep_best}: this run trains no such head, only {', '.join(sorted(judged))}")
    return sizes


def _has_positives(examples: Examples) -> bool:
    """Whether there are two training pictures that an embedding is to bring together."""
    is_training = np.zeros(len(examples.counts), dtype=bool)
    is_training[examples.train] = True
    return any(is_training[examples.relation.positives_of(int(row))].any() for row in examples.train)


def _built(base: NetworkConfig, sizes: Mapping[str, int], start: Checkpoint | None, config: TrainConfig) -> BinNet:
    stochastic = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    try:
        net = build(base, sizes, weights=start, dropout=config.dropout, training_args=stochastic)
    except UnknownModel:
        if not stochastic:
            raise
        net = build(base, sizes, weights=start, dropout=config.dropout)  # an architecture without stochastic depth
    set_frozen(net, config.freeze)
    if _accelerator(config) == "cpu":
        strided_in_float32(net)
    return net.to(memory_format=torch.channels_last)


def _inputs(
    prepared: Prepared, net: BinNet, preprocess: Preprocess, config: TrainConfig, start: Checkpoint | None, say: Say
) -> Examples:
    if config.views:
        return _with_views(prepared, net, config, start, say)
    if config.freeze != "backbone":
        return prepared.examples
    if start is None:
        raise BadSettings("--freeze backbone wants a backbone with weights; one of random numbers has nothing to keep")
    device = torch.device("cuda" if _accelerator(config) == "gpu" else "cpu")
    found = with_features(prepared, net, preprocess, _identity(start, config), cache=checkpoint.cache_root(), device=device)
    net.to("cpu").train()
    return found


def _identity(start: Checkpoint, config: TrainConfig) -> str:
    """Of the network whose features are kept."""
    return f"{start.identity} stride {config.stride}" if config.stride else start.identity


def _with_views(prepared: Prepared, net: BinNet, config: TrainConfig, start: Checkpoint | None, say: Say) -> Examples:
    if not config.freeze.startswith("stages:") or start is None:
        raise BadSettings("--views keeps what frozen stages compute: give --freeze stages:N and a backbone with weights")
    stages = halves_of(net, config)
    if stages is None:
        raise BadSettings(f"{config.backbone} cannot be cut after {config.freeze} into two parts; train without --views")
    net.to("cuda" if _accelerator(config) == "gpu" else "cpu").eval()
    found = with_views(prepared, net, stages, config, _identity(start, config), cache=checkpoint.cache_root(), say=say)
    net.to("cpu").train()
    return found


def _whiten(net: BinNet, prepared: Prepared, examples: Examples, config: TrainConfig) -> None:
    """Set the embedding head in closed form, from the training pictures and their mirror images, and keep it."""
    if config.freeze != "backbone":
        raise BadSettings("--embedding-loss whiten wants --freeze backbone: it is a closed form on features that do not change")
    rows, names = examples.train, {row.path: row.group for row in prepared.split.rows}
    has_products = any(picture.products for picture in prepared.labelled.pictures)
    groups = examples.labels[rows] if not has_products and prepared.classes else None
    if groups is None:
        groups = np.unique([names[examples.names[row]] for row in rows], return_inverse=True)[1]
    views = examples.inputs.shape[1]
    first = net.pooled_dim if net.pyramid else 0
    both = np.concatenate([examples.inputs[rows, view, first:] for view in range(views)])
    head = net.get_submodule("embedding")
    fit_head(head, both, np.tile(groups, views))
    head.requires_grad_(False)


def _say_start(prepared: Prepared, net: BinNet, config: TrainConfig, say: Say) -> None:
    learning = sum(value.numel() for value in net.parameters() if value.requires_grad)
    say(
        f"{len(prepared.examples.train)} training and {len(prepared.examples.val)} validation pictures; "
        f"{config.backbone} with heads {', '.join(f'{name} ({size})' for name, size in net.sizes.items()) or 'none'}; "
        f"{learning / 1e6:.1f} million weights learn"
    )
    if config.embedding and config.embedding_weight and "embedding" not in net.sizes:
        say(f"no embedding is learnt: {_NO_POSITIVES}; vectors are the pooled features")
    most = int(prepared.examples.counts.max())
    if "count" in net.sizes and most > config.max_count:
        more = int((prepared.examples.counts > config.max_count).sum())
        say(f"{more} pictures show more than {config.max_count} items (up to {most}): they are learnt as one outcome, `more`")


# ---- Lightning


def _trainer(
    config: TrainConfig, say: Say, callbacks: tuple[Callback, ...], before: Earlier
) -> tuple[lightning.Trainer, Watch]:
    watch = Watch(say)
    best = ModelCheckpoint(
        dirpath=config.run_dir, filename=BEST.removesuffix(".ckpt"), mode="max", save_top_k=1,
        monitor=None if config.keep_best == "last" else "score",
        save_last=False, save_on_train_epoch_end=True, enable_version_counter=False,
    )  # fmt: skip
    last = ModelCheckpoint(
        dirpath=config.run_dir, filename=LAST.removesuffix(".ckpt"), save_top_k=1, save_on_train_epoch_end=True,
        enable_version_counter=False,
    )  # fmt: skip
    every: list[Callback] = [watch, LearningRateMonitor("epoch"), *callbacks]
    if config.ema:
        every.insert(0, WeightAveraging(avg_fn=averaging(config.ema)))
    if config.patience:
        every.append(EarlyStopping("score", mode="max", patience=config.patience))
    trainer = lightning.Trainer(
        **_hardware(config),
        max_epochs=before.epochs if before.is_over else config.epochs,
        gradient_clip_val=config.clip or None,
        callbacks=[*every, best, last],
        logger=TensorBoardLogger(config.run_dir.parent, name=config.run_dir.name, version="tensorboard"),
        profiler=_profiler(config),
        plugins=[AtomicCheckpoints()],
        default_root_dir=config.run_dir,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    return trainer, watch


def _profiler(config: TrainConfig) -> Profiler | None:
    """Writes into the run's folder: what it would print, Lightning logs where we are quiet."""
    kinds: dict[str, type[SimpleProfiler | AdvancedProfiler | PyTorchProfiler]] = {
        "simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler,
    }  # fmt: skip
    return kinds[config.profile](dirpath=config.run_dir, filename="profile") if config.profile else None


def _fit(trainer: lightning.Trainer, module: BinModule, data: BinData, start_at: str | None) -> None:
    try:
        with _interrupts(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=start_at, weights_only=False)
    except ProcessRaisedException as error:  # of a spawned process: its error as text
        raised = re.findall(r"^(?:binsight\.errors\.)?(\w+): (.+)", str(error), re.MULTILINE)
        name, message = raised[-1] if raised else ("", "")
        kind = getattr(errors, name, OSError if name == "OSError" else None)
        if kind is None:
            raise
        raise kind(message) from error
    except ProcessExitedException as error:
        how = error.signal_name or f"exit code {error.exit_code}"
        raise CannotBeDone(f"a process of the training was ended by {how}: was memory short? Go on with --resume") from error


@contextmanager
def _interrupts(trainer: lightning.Trainer) -> Iterator[None]:
    """Ctrl-C is KeyboardInterrupt: Lightning ends the process by SystemExit, and has signals ignored from then on."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from error


def _take_back(module: BinModule, watch: Watch, last: Path) -> None:
    """What a spawned process has learnt of the run, from its checkpoint: this process's module has not changed."""
    if not module.history and last.exists():
        saved = torch.load(last, map_location="cpu", weights_only=False)  # a file that we wrote ourselves
        module.history = list(saved["history"])
        watch.load_state_dict(saved["callbacks"][watch.state_key])


def _hardware(config: TrainConfig) -> dict[str, Any]:
    accelerator = _accelerator(config)
    if accelerator == "gpu" and config.devices > torch.cuda.device_count():
        raise CannotBeDone(f"there are {torch.cuda.device_count()} CUDA devices, not {config.devices}; take fewer --devices")
    many = config.devices * config.nodes > 1
    # Lightning starts this script again for each process; "spawn" needs no script, and gloo no GPU.
    strategy = "auto" if not many else ("ddp" if accelerator == "gpu" else "ddp_spawn")
    return {
        "accelerator": accelerator, "devices": config.devices, "num_nodes": config.nodes, "strategy": strategy,
        "precision": _precision(config),
    }  # fmt: skip


def _accelerator(config: TrainConfig) -> str:
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise CannotBeDone("torch sees no CUDA device; take --device cpu")
    return "gpu" if there and config.device != "cpu" else "cpu"


def _precision(config: TrainConfig) -> str:
    on_gpu = _accelerator(config) == "gpu"
    if config.precision == "fp16" and not on_gpu:
        raise BadSettings("want --precision bf16 or fp32 on a CPU: it has no fp16 arithmetic to train in")
    if config.precision == "auto":
        has = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else has_bf16()
        return "bf16-mixed" if has else "32-true"
    return {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}[config.precision]


# ---- after


def _load_best(net: BinNet, run_dir: Path) -> None:
    """The averaged weights of the best epoch, where one was saved; else those that the run ended with."""
    best = run_dir / BEST
    if best.exists():
        state = torch.load(best, map_location="cpu", weights_only=False)["state_dict"]  # a file that we wrote ourselves
        net.load_state_dict({name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")})


def _settle_norms(net: BinNet, examples: Examples) -> None:
    """Measure the statistics of batch norms that learnt anew, in float32, on training pictures as they are.

    For networks whose first layers learnt in bfloat16, whose error there is not random: without this MobileNetV2 counts 2 to 6
    points worse in float32 than it did in training. Where those layers computed in float32 it loses (LOG.md, 2026-11-21).
    Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3 ("precise BN").
    """
    norms = [
        module for module in net.backbone.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None and module.weight.requires_grad
    ]  # fmt: skip
    if not norms:
        return
    rows = np.random.default_rng(0).permutation(examples.train)[:_SETTLING]
    momenta = [norm.momentum for norm in norms]
    net.cpu().eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    with torch.no_grad():
        for at in range(0, len(rows) - len(rows) % _SETTLED or len(rows), _SETTLED):
            pixels = torch.from_numpy(np.ascontiguousarray(examples.inputs[rows[at : at + _SETTLED]]))
            net.backbone(net.planes(pixels).contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def _finished(net: BinNet, prepared: Prepared, examples: Examples, config: TrainConfig) -> tuple[Heads, Figures]:
    """The heads with a calibration fixed on the validation pictures, and the figures of the kept weights on them."""
    net.cpu().eval()
    said = _said(net, examples)
    figures = figures_of(said, examples, config, net)
    calibration = None
    if "count" in net.sizes:
        kind: CountKind = "corn" if config.count_head == "corn" else "softmax"
        truth = examples.counts[said["row"]]
        known = truth != UNKNOWN
        calibration = fit_calibration(
            said["count"][known], truth[known], kind=kind, max_count=config.max_count, coverage=config.coverage
        )
        figures["temperature"] = calibration.temperature
        figures["width"] = _width(calibration, said["count"][known])
    return Heads(net.sizes.get("embedding"), calibration, prepared.classes if "label" in net.sizes else None), figures


def _said(net: BinNet, examples: Examples) -> dict[str, NDArray[Any]]:
    parts: list[dict[str, NDArray[Any]]] = []
    with torch.inference_mode():
        for at in range(0, len(examples.val), 64):
            rows = examples.val[at : at + 64]
            inputs = torch.from_numpy(np.ascontiguousarray(examples.inputs[rows]))
            said = net(inputs) if inputs.dtype == torch.uint8 else net.answers(inputs[:, 0])
            parts.append({name: value.float().numpy() for name, value in said.items()} | {"row": rows})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _width(calibration: Calibration, logits: NDArray[Any]) -> float:
    return float(np.mean([count.high - count.low for count in calibration.counts(logits)]))


def _provenance(
    config: TrainConfig, prepared: Prepared, figures: Figures, history: list[Figures], took_s: float
) -> dict[str, Any]:
    """What the folder's config.json says of the training: enough to do it again."""
    from binsight import __version__

    given = {name: value for name, value in config.to_json().items() if name not in ("out", "licence_file")}
    plain = {name: _finite(value) for name, value in figures.items()}
    return {
        "binsight": __version__, "torch": torch.__version__, "lightning": lightning.__version__, "config": given,
        "split": {"by": prepared.split.by, "sizes": prepared.split.sizes}, "validation": plain,
        "epochs_run": len(history), "took_s": round(took_s, 1), "timm": timm.__version__,
    }  # fmt: skip


def _finite(value: Any) -> Any:  # a figure
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_history(report: TrainReport, file: Path) -> None:
    """The figures of every epoch, as JSON."""
    file.write_text(json.dumps(report.to_json(), indent=1, default=str) + "\n", encoding="utf-8")
