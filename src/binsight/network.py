"""The networks of timm: looked up, built with their weights, and wrapped to take pixels. With `encoder`, the only torch import.

A network never starts from random numbers here: every weight must come from the file, or loading fails.
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.jit._trace import TracerWarning  # torch.jit names it without exporting it to type checkers

from binsight.errors import UnknownModel

_SOURCE_KEYS = frozenset({"url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "custom_load"})
_log = logging.getLogger(__name__)


@final
class PixelNet(nn.Module):
    """A backbone that takes pixels as they were decoded: uint8 (n, h, w, 3) in, float32 features (n, dim) out.

    mean and std (of values in [0, 1]) lie in the graph, so that every runtime normalises alike. The features are not of
    unit length: that is `vectors.normalise`'s, in float64.
    """

    mean: Tensor  # (1, 3, 1, 1), of values in [0, 255]
    std: Tensor

    def __init__(self, backbone: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).float()  # (n, 3, h, w), channels last in memory
        features: Tensor = self.backbone((planes - self.mean) / self.std)
        return features.float()  # (n, dim)


def load_timm(
    architecture: str,
    safetensors: Path,
    *,
    model_args: Mapping[str, Any],
    pretrained_cfg: Mapping[str, Any],
    dropped: Sequence[str],
) -> nn.Module:
    """timm's network without its classifier, in float32 and eval mode, every weight from the file.

    dropped: the modules whose weights in the file are not used. Raises UnknownModel when timm does not know the
    architecture, or the weights do not fit it.
    """
    if not timm.is_model(architecture):
        raise UnknownModel(f"timm {timm.__version__} knows no architecture {architecture!r}{_near(architecture)}")
    known = set(timm.models.PretrainedCfg.__dataclass_fields__) - _SOURCE_KEYS
    cfg = {key: value for key, value in pretrained_cfg.items() if key in known}
    every = load_file(safetensors)
    state = {name: value for name, value in every.items() if not name.startswith(tuple(f"{d}." for d in dropped))}
    try:
        network = timm.create_model(architecture, pretrained_cfg=cfg, num_classes=0, **model_args)
        # Batch counters are missing from files older than PyTorch 0.4.1 and from some converted ones; nothing reads them.
        wanted = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
        if missing := sorted(wanted - state.keys()):
            _log.info("%s has no weight %r under its present name; loading it as timm does", safetensors, missing[0])
            network = _load_renamed(architecture, safetensors, model_args, cfg)
        else:
            network.load_state_dict(state, strict=False)
            if unused := sorted(state.keys() - network.state_dict().keys()):
                _log.warning("%s does not use %d weights of %s: %s …", architecture, len(unused), safetensors, unused[0])
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError) as error:  # what timm and torch raise at misfits
        raise UnknownModel(f"{safetensors} does not fit {architecture} with model_args {dict(model_args)}: {error}") from error
    ready: nn.Module = network.float().eval().requires_grad_(requires_grad=False)
    return ready


def example_pixels(size: tuple[int, int], n: int) -> Tensor:
    """Noise to trace and to compare a network with: uint8 (n, h, w, 3), the same at every call."""
    return torch.randint(0, 256, (n, *size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def features_of(network: nn.Module, pixels: Tensor) -> NDArray[np.float32]:
    """What torch says of uint8 (n, h, w, 3) on the CPU in float32: (n, dim). The reference for every faster runtime."""
    with torch.inference_mode():
        features: NDArray[np.float32] = network(pixels).numpy()
    return features


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


def look_up(model: str) -> tuple[dict[str, Any], str]:
    """What timm knows of a pretrained model by name: a config.json for it, and the hub's repository with its weights.

    Raises UnknownModel when it knows no such model, or no weights for it.
    """
    try:
        cfg = timm.models.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        near = _near(model)
        raise UnknownModel(f"timm {timm.__version__} knows no model {model!r}{near}; or give local-dir:PATH") from error
    if not cfg.hf_hub_id:
        raise UnknownModel(f"timm has no weights on the hub for {model!r}; give a folder that has them as local-dir:PATH")
    kept = {key: value for key, value in cfg.to_dict().items() if key not in _SOURCE_KEYS}
    return {"architecture": model.partition(".")[0], "pretrained_cfg": kept}, cfg.hf_hub_id


def _load_renamed(architecture: str, safetensors: Path, model_args: Mapping[str, Any], cfg: dict[str, Any]) -> nn.Module:
    """For files whose names timm maps to its own: its loader, with the classifier, then without it.

    Some families load leniently there, so it is done from two random starts: what differs was not loaded.
    """
    built = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            source = {**cfg, "file": str(safetensors)}
            built.append(timm.create_model(architecture, pretrained=True, pretrained_cfg=source, **model_args))
    for network in built:
        network.reset_classifier(0)
    first, second = (network.state_dict() for network in built)
    if random := [name for name in first if not torch.equal(first[name], second[name])]:
        raise UnknownModel(f"{len(random)} weights are not in the file, for example {random[0]!r}")
    return built[0]  # type: ignore[no-any-return]  # timm is untyped here


def _near(model: str) -> str:
    near = difflib.get_close_matches(model, [*timm.list_models(), *timm.list_models(pretrained=True)], n=3)
    return f"; near: {', '.join(near)}" if near else ""
