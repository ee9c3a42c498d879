"""BinNet, a backbone with heads: built to train, loaded to run, joined from several.

A network that is loaded never starts from random numbers: every weight must come from the file, or loading fails. Only
`build`, for training, starts heads, and where it is given no weights the backbone, from torch's random numbers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models import group_parameters
from torch import Tensor, nn
from torch.jit._trace import TracerWarning  # torch.jit names it without exporting it to type checkers

from binsight.backbone import create, from_checkpoint
from binsight.checkpoint import HEADS, Checkpoint, Heads, NetworkConfig
from binsight.counting import Calibration
from binsight.errors import BadSettings, UnknownModel
from binsight.pyramid import PyramidHead, PyramidReader
from binsight.weights import read_weights

_COUNTERS = "num_batches_tracked"
_EARLY_SHARE = 0.03  # of a backbone's weights


@final
class BinNet(nn.Module):
    """A backbone with heads: pixels as they were decoded in, what each head says out.

    backbone: a timm network without classifier. sizes: outputs of each head by its name in `checkpoint.HEADS`; a head is
    one linear layer on the pooled features, so all answers come from one pass. mean and std (of values in [0, 1]) lie in the
    graph and not among the weights. dropout: of the features before the count and label heads. counters: networks like
    the first, whose features, one's after the other's, the count and label heads take; the vectors are then untouched by what
    counting learns. mirrored: how many of them, the last ones, look at the mirror image.
    has_pyramid: the embedding head is a `pyramid.PyramidHead` on the cells of several feature maps, which follow the pooled
    features. Raises BadSettings for unknown heads, and for a backbone that a pyramid cannot be built on.
    """

    mean: Tensor  # (1, 3, 1, 1), of values in [0, 255]
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        sizes: Mapping[str, int],
        mean: Sequence[float],
        std: Sequence[float],
        dropout: float = 0.0,
        counters: Sequence[nn.Module] = (),
        mirrored: int = 0,
        has_pyramid: bool = False,
    ) -> None:
        super().__init__()
        if unknown := sorted(sizes.keys() - set(HEADS)):
            raise BadSettings(f"want heads among {', '.join(HEADS)}, got {unknown[0]!r}")
        self.backbone = backbone
        self.sizes = {name: sizes[name] for name in HEADS if name in sizes}
        self.pooled_dim = _pooled_dim(backbone)
        self.pyramid = PyramidReader(backbone, self.pooled_dim) if has_pyramid else None
        self.features_dim = self.pooled_dim + (self.pyramid.size if self.pyramid else 0)
        self.counters = len(counters)
        is_alone = len(counters) == 1 and not mirrored
        self.counter = None if not counters else counters[0] if is_alone else Counters(counters, mirrored)
        self.dropout = nn.Dropout(dropout)
        for name, size in self.sizes.items():
            if self.pyramid and name == "embedding":
                self.add_module(name, PyramidHead(self.pyramid.levels, size))
                continue
            head = nn.Linear(self.pooled_dim * (1 if name == "embedding" else max(1, self.counters)), size)
            nn.init.normal_(head.weight, std=self.pooled_dim**-0.5 if name == "embedding" else 0.01)
            nn.init.zeros_(head.bias)
            self.add_module(name, head)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1) * 255, persistent=False)
        self._frozen: tuple[nn.Module, ...] = ()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 (n, h, w, 3) → float32 "embedding" (n, dim), not of unit length, and "count" and "label" logits where there
        are such heads. Without an embedding head the pooled features are the embedding.
        """
        return self.forward_planes(self.planes(pixels))

    def planes(self, pixels: Tensor) -> Tensor:
        """uint8 (n, h, w, 3), or float in [0, 255], → normalised float32 (n, 3, h, w), channels last in memory."""
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def forward_planes(self, planes: Tensor) -> dict[str, Tensor]:
        """As `forward`, of normalised planes float (n, 3, h, w), as an augmentation leaves them."""
        counted: Tensor | None = None if self.counter is None else self.counter(planes).float()
        return self.answers(self.features(planes), counted)

    def features(self, planes: Tensor) -> Tensor:
        """Pooled features, then a pyramid's cells, float32 (n, features_dim): what a frozen backbone computes once."""
        if self.pyramid is not None:
            return torch.cat(self.pyramid(self.backbone, planes), dim=1)
        features: Tensor = self.backbone(planes)
        return features.float()

    def answers(self, features: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
        """What the heads say of features float32 (n, features_dim); computed in float32 under autocast too.

        counted: the counters' pooled features, where there are some.
        """
        with torch.autocast(features.device.type, enabled=False):
            embedded = features[:, self.pooled_dim :] if self.pyramid else features
            said = {"embedding": self._modules["embedding"](embedded) if "embedding" in self.sizes else features}  # type: ignore[misc]
            dropped = self.dropout(features[:, : self.pooled_dim] if counted is None else counted)
            return said | {name: self._modules[name](dropped) for name in self.sizes if name != "embedding"}  # type: ignore[misc]

    def freeze(self, modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> None:
        """Learn everything but these parameters, and keep these modules in eval mode: `set_frozen` says which."""
        self.requires_grad_(True)
        for parameter in parameters:
            parameter.requires_grad_(False)
        self._frozen = tuple(modules)
        self.train(self.training)

    def train(self, mode: bool = True) -> BinNet:
        """As nn.Module's, but what is frozen stays in eval mode, so that its batch-norm statistics do not move."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


@final
class Counters(nn.Module):
    """Several backbones that look at the same picture, the last `mirrored` of them at its mirror image.

    What they give is their pooled features, one's after the other's.
    """

    def __init__(self, members: Sequence[nn.Module], mirrored: int = 0) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._upright = len(members) - mirrored

    def forward(self, planes: Tensor) -> Tensor:
        views = [planes if place < self._upright else planes.flip(3) for place in range(len(self.members))]
        return torch.cat([member(view) for member, view in zip(self.members, views, strict=True)], dim=1)


def build(
    config: NetworkConfig,
    sizes: Mapping[str, int],
    *,
    weights: Checkpoint | Mapping[str, Tensor] | None = None,
    dropout: float = 0.0,
    training_args: Mapping[str, Any] | None = None,
) -> BinNet:
    """A network to train: everything learns, in training mode, in float32.

    sizes: as BinNet's. weights: a checkpoint whose backbone it starts from (timm's or ours; its heads too, where they have the
    same size), a state dict of a BinNet, which has to fit, or None: random numbers of torch's generator. training_args:
    arguments of the architecture that matter in training only (`drop_path_rate`), so not part of config and fingerprint.
    Raises UnknownModel when architecture, arguments and weights do not go together.
    """
    config = replace(config, model_args={**config.model_args, **(training_args or {})})
    theirs = weights if isinstance(weights, Checkpoint) and weights.heads is None else None
    backbone = from_checkpoint(theirs, config) if theirs else create(config)
    net = BinNet(
        backbone,
        sizes=sizes,
        mean=config.preprocess.mean,
        std=config.preprocess.std,
        dropout=dropout,
        has_pyramid=config.has_pyramid,
    )
    if isinstance(weights, Checkpoint) and weights.heads is not None:
        same = {name for name, size in weights.heads.sizes.items() if sizes.get(name) == size}
        state = _state(weights)
        kept = {name: value for name, value in state.items() if name.partition(".")[0] in {"backbone", *same}}
        lent = {name: value for name, value in net.state_dict().items() if name.partition(".")[0] not in {"backbone", *same}}
        _fill(net, {**kept, **lent}, str(weights.weights))
    elif weights is not None and not isinstance(weights, Checkpoint):
        _fill(net, weights, "the state")
    return net.float().requires_grad_(True).train()


def load(opened: Checkpoint) -> BinNet:
    """The network of an opened folder, timm's or ours, to run: in float32 and eval mode. Raises UnknownModel."""
    config = opened.config
    backbone = from_checkpoint(opened, config) if opened.heads is None else create(config)
    sizes = {} if opened.heads is None else opened.heads.sizes
    counters = [create(config) for _ in range(opened.heads.counters if opened.heads else 0)]
    net = BinNet(
        backbone, sizes=sizes, mean=config.preprocess.mean, std=config.preprocess.std, counters=counters,
        mirrored=opened.heads.mirrored if opened.heads else 0, has_pyramid=config.has_pyramid,
    )  # fmt: skip
    if opened.heads is not None:
        _fill(net, _state(opened), str(opened.weights))
    return net.float().eval().requires_grad_(False)


def joined(vectors: Checkpoint, *counts: Checkpoint, mirrored: int = 0) -> tuple[BinNet, Heads]:
    """One network with the vectors of a model and the counts and classes of others, all of the same architecture.

    Each counts with its own backbone. Of one other, counts and classes are those it gave alone. Of several they are the mean
    of their logits, each divided by its temperature: one linear head on the features of all. Its temperature is then 1 and its
    intervals hold as much probability as the widest of them, until they are fixed anew (`evaluation.calibrate_counts`).
    mirrored: how many of the others, the last ones, shall look at the mirror image, which costs nothing and makes them differ.
    Raises BadSettings when they do not take the same pictures, do not tell the same outcomes apart, or have nothing to add.
    """
    first = vectors.config
    for other in counts:
        if other.heads is None or (other.heads.count is None and other.heads.classes is None):
            raise BadSettings(f"{other.folder} has neither a count nor a label head to join to {vectors.folder}")
        second = other.config
        same = (second.architecture, second.model_args, second.preprocess)
        if (first.architecture, first.model_args, first.preprocess) != same:
            raise BadSettings(
                f"want models of one architecture and preprocessing, got {first.architecture} {first.preprocess} and "
                f"{second.architecture} {second.preprocess}"
            )
        if other.heads.mirrored:
            raise BadSettings(f"counters of {other.folder} look at the mirror image; join those that it was joined from")
    one, others = load(vectors), [load(other) for other in counts]
    members = [member for net in others for member in _counting(net)]
    if not 0 <= mirrored <= len(members):
        raise BadSettings(f"want from 0 to {len(members)} counters that look at the mirror image, got {mirrored}")
    count, classes = _common([other.heads for other in counts if other.heads is not None])
    embedding = vectors.heads.embedding if vectors.heads else None
    heads = Heads(embedding, count, classes, counters=len(members), mirrored=mirrored)
    net = BinNet(
        one.backbone, sizes=heads.sizes, mean=first.preprocess.mean, std=first.preprocess.std, counters=members,
        mirrored=mirrored, has_pyramid=first.has_pyramid,
    )  # fmt: skip
    for name in heads.sizes:
        head = net.get_submodule(name)
        if name == "embedding" or len(others) == 1:
            head.load_state_dict((one if name == "embedding" else others[0]).get_submodule(name).state_dict())
            continue
        theirs = [_logits_head(net, other, name) for net, other in zip(others, counts, strict=True)]
        head.load_state_dict(
            {
                "weight": torch.cat([weight for weight, _ in theirs], dim=1) / len(theirs),
                "bias": torch.stack([bias for _, bias in theirs]).mean(dim=0),
            }
        )
    return net.float().eval().requires_grad_(False), heads


def _counting(net: BinNet) -> list[nn.Module]:
    """The backbones that a network counts with."""
    if net.counter is None:
        return [net.backbone]
    return list(net.counter.members) if isinstance(net.counter, Counters) else [net.counter]


def _logits_head(net: BinNet, opened: Checkpoint, name: str) -> tuple[Tensor, Tensor]:
    """Weight (outputs, features) and bias of a head whose logits are divided by its temperature."""
    head = net.get_submodule(name)
    assert isinstance(head, nn.Linear)
    heat = opened.heads.count.temperature if name == "count" and opened.heads and opened.heads.count else 1.0
    return head.weight.detach() / heat, head.bias.detach() / heat


def _common(all_heads: Sequence[Heads]) -> tuple[Calibration | None, tuple[str, ...] | None]:
    """What the heads of several models answer together."""
    if len(all_heads) == 1:
        return all_heads[0].count, all_heads[0].classes
    if len({heads.classes for heads in all_heads}) > 1:
        raise BadSettings("want models that tell the same classes apart, or none")
    counts = [heads.count for heads in all_heads if heads.count is not None]
    kinds = {(count.kind, count.max_count, count.coverage) for count in counts}
    if len(kinds) > 1 or len(counts) not in (0, len(all_heads)):
        raise BadSettings("want count heads of one kind, max_count and coverage in all models that are joined")
    if not counts:
        return None, all_heads[0].classes
    widest = max(count.threshold for count in counts)
    return replace(counts[0], temperature=1.0, threshold=widest), all_heads[0].classes


def set_frozen(net: BinNet, mode: str) -> None:
    """Say what does not learn: "none", "backbone", or "stages:N", the first N stages of the backbone counted from the stem.

    Stages are timm's: of a ResNet the stem and its four layers, of MobileNetV2 the stem and seven groups of blocks, of a
    transformer the stem and its blocks. Raises BadSettings for another mode, more stages than there are, or a backbone
    whose stages timm does not name.
    """
    if mode == "none":
        net.freeze((), ())
        return
    if mode == "backbone":
        net.freeze((net.backbone,), tuple(net.backbone.parameters()))
        return
    found = re.fullmatch(r"stages:(\d{1,4})", mode)
    if not found or not int(found[1]):
        raise BadSettings(f"want to freeze 'none', 'backbone' or 'stages:N' with N from 1, got {mode!r}")
    stages = _stages(net.backbone)
    if not stages:
        raise BadSettings(f"the stages of {type(net.backbone).__name__} are not known; freeze 'none' or 'backbone'")
    if int(found[1]) > len(stages):
        raise BadSettings(f"want to freeze at most the {len(stages)} stages of {type(net.backbone).__name__}, got {mode!r}")
    names = {name for stage in stages[: int(found[1])] for name in stage}
    frozen = [value for name, value in net.backbone.named_parameters() if name in names]
    known = set(map(id, frozen))
    # A block whose every parameter is frozen is so as a whole: its batch norm, and its stochastic depth too.
    wholes = [
        m for m in net.backbone.modules() if {id(p) for p in m.parameters()} <= known and any(True for _ in m.parameters())
    ]
    net.freeze(wholes, frozen)


def layer_groups(net: BinNet) -> list[list[tuple[str, nn.Parameter]]]:
    """All parameters by depth: the stem's first, then each stage's, the heads' last; for learning rates by layer.

    A group is a list of names (`backbone.…`) and parameters, frozen ones among them. A backbone whose stages timm does not
    name is one group.
    """
    named = dict(net.backbone.named_parameters())
    stages = _stages(net.backbone) or [frozenset(named)]
    groups = [[(f"backbone.{name}", value) for name, value in named.items() if name in stage] for stage in stages]
    heads = [(name, value) for name, value in net.named_parameters() if not name.startswith("backbone.")]
    return [*groups, heads] if heads else groups


def example_pixels(size: tuple[int, int], n: int) -> Tensor:
    """Noise to trace and to compare a network with: uint8 (n, h, w, 3), the same at every call."""
    return torch.randint(0, 256, (n, *size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def answers_of(net: BinNet, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
    """What torch says of uint8 (n, h, w, 3) on the CPU in float32, by head. The reference for every faster runtime."""
    with torch.inference_mode():
        return {name: value.numpy() for name, value in net(pixels).items()}


@final
class TupleNet(nn.Module):
    """A BinNet that answers with a tuple, in the order of `names`: what tracers and exporters take."""

    def __init__(self, net: BinNet) -> None:
        super().__init__()
        self.net = net
        self.names = tuple(name for name in HEADS if name == "embedding" or name in net.sizes)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        said = self.net(pixels)
        return tuple(said[name] for name in self.names)


def traced(network: nn.Module, example: Tensor) -> Any:  # torch.jit.ScriptFunction, untyped
    """The operations of a network on such pixels, with its weights as constants, for OpenVINO. Call it in `quiet_tracing`.

    It is traced as a function: of a module, torch first describes each part, which takes longer than the rest.
    """
    learning = [value for value in network.parameters() if value.requires_grad]  # no constant may

    def answers(pixels: Tensor) -> Any:
        return network(pixels)

    for value in learning:
        value.requires_grad_(False)
    try:
        # Unchecked: the export is compared with torch, on other pictures.
        return torch.jit.trace(answers, example, check_trace=False)  # type: ignore[no-untyped-call]
    finally:
        for value in learning:
            value.requires_grad_(True)


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Ignore what torch says while OpenVINO traces a network.

    torch calls torch.jit.trace deprecated (torch.export takes twice as long and gives the same vectors), and warns of
    shapes that become constants: the picture's size is one here, and the batch is compared after the export.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield


def _state(opened: Checkpoint) -> dict[str, Tensor]:
    """The weights of a folder of ours, float32."""
    return {name: torch.from_numpy(values) for name, values in read_weights(opened.weights).items()}


def _fill(net: BinNet, state: Mapping[str, Tensor], source: str) -> None:
    """Every weight of the network from a state dict that holds no other; batch counters may be missing."""
    wanted = net.state_dict()
    missing = sorted(name for name in wanted.keys() - state.keys() if not name.endswith(_COUNTERS))
    if missing:
        raise UnknownModel(f"{source} lacks {missing[0]!r} ({len(missing)} weights in all), so it does not fit this network")
    if strange := sorted(state.keys() - wanted.keys()):
        raise UnknownModel(f"{source} holds {strange[0]!r} ({len(strange)} weights in all), which this network does not have")
    if shapes := [name for name, value in state.items() if value.shape != wanted[name].shape]:
        one = shapes[0]
        raise UnknownModel(f"{source}: {one!r} is {tuple(state[one].shape)}, the network's is {tuple(wanted[one].shape)}")
    net.load_state_dict(state, strict=False)


def _pooled_dim(backbone: nn.Module) -> int:
    """timm's num_features, or where a network widens its features after pooling, the width that comes out."""
    dim: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return int(dim)


def early_kernels(net: BinNet) -> frozenset[str]:
    """Names of the weights of each backbone's first stages, as many as hold 3% of it at most: the ones that bear no rounding.

    What they compute wrongly is wrong for every picture alike, and all that follows has learnt from what they computed: of a
    MobileNetV2 that counts, float16 for its first three groups of blocks costs 0.006 of RMSE, for the rest nothing (LOG.md,
    2026-11-21).
    """
    found: set[str] = set()
    for place, module in net.named_modules():
        if getattr(module, "group_matcher", None) is None:
            continue
        sizes = {name: value.numel() for name, value in module.named_parameters()}
        held = 0
        for stage in _stages(module):
            held += sum(sizes[name] for name in stage)
            if held > _EARLY_SHARE * sum(sizes.values()):
                break
            found |= {f"{place}.{name}" for name in stage}
    return frozenset(found)


def _stages(backbone: nn.Module) -> list[frozenset[str]]:
    """Names of the parameters of each stage, from the stem on; [] where timm names no stages."""
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return []
    groups: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=True))
    return [frozenset(groups[number]) for number in sorted(groups)]
