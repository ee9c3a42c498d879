"""Backbones: timm's (our ViT is one of them) looked up, and built with their weights."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from binsight import vit
from binsight.checkpoint import Checkpoint, NetworkConfig
from binsight.errors import UnknownModel
from binsight.preprocess import Preprocess

assert vit.STRIDE  # its import registers our networks with timm
_MISFITS = (RuntimeError, TypeError, ValueError, AssertionError, KeyError, AttributeError)
_SOURCE_KEYS = frozenset({"url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "custom_load"})
_log = logging.getLogger(__name__)


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


def random_config(architecture: str, preprocess: Preprocess, model_args: Mapping[str, Any] | None = None) -> NetworkConfig:
    """The config of a network that starts from random numbers: any of timm's architectures or `binsight_vit_tiny|small`.

    An architecture that is made for one size of picture is made for that of `preprocess`. Raises UnknownModel.
    """
    if not timm.is_model(architecture):
        raise UnknownModel(f"timm {timm.__version__} knows no architecture {architecture!r}{_near(architecture)}")
    arguments = dict(model_args or {})
    cfg = timm.models.get_pretrained_cfg(architecture)
    if cfg is not None and cfg.fixed_input_size:
        arguments.setdefault("img_size", list(preprocess.size))
    return NetworkConfig(architecture, arguments, str(arguments.get("global_pool") or "default"), preprocess, (), {})


def create(config: NetworkConfig) -> nn.Module:
    if not timm.is_model(config.architecture):
        raise UnknownModel(f"timm {timm.__version__} knows no architecture {config.architecture!r}{_near(config.architecture)}")
    try:
        backbone: nn.Module = timm.create_model(config.architecture, num_classes=0, **config.model_args)
        return backbone
    except _MISFITS as error:  # what timm and torch raise at misfits
        raise UnknownModel(f"{config.architecture} cannot be built with model_args {config.model_args}: {error}") from error


def from_checkpoint(opened: Checkpoint, config: NetworkConfig) -> nn.Module:
    theirs = opened.config
    if theirs.architecture != config.architecture:
        raise UnknownModel(f"{opened.folder} holds the weights of {theirs.architecture}, not of {config.architecture}")
    return load_timm(
        config.architecture,
        opened.weights,
        model_args=config.model_args,
        pretrained_cfg=theirs.pretrained_cfg,
        dropped=theirs.dropped,
    )


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
    except _MISFITS as error:  # what timm and torch raise at misfits
        raise UnknownModel(f"{safetensors} does not fit {architecture} with model_args {dict(model_args)}: {error}") from error
    ready: nn.Module = network.float().eval().requires_grad_(False)
    return ready


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
