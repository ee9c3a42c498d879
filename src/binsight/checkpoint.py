"""A model folder, opened without torch: which network, which pictures it takes, which weights, and its fingerprint.

Read today: timm folders (`config.json` with `architecture`, `model_args`, `pretrained_cfg`; `model.safetensors`). A folder
whose `config.json` says `"format": "binsight-model"` is ours and gets its own reader in `_READERS`. Pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from binsight import hub, weights
from binsight.errors import BinsightError, UnknownModel
from binsight.preprocess import Preprocess

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_LOCAL = "local-dir:"
_CONFIG_LIMIT = 16 << 20  # bytes; ImageNet-22k's label descriptions take 2 MB
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pkl")
# What timm.create_model or its builder would take for itself: a place to load from, or another kind of network.
_FORBIDDEN_ARGS = frozenset({
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_strict",
    "pretrained_filter_fn", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only", "variant",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a network is, apart from its weights.

    model_args: what timm's constructor of `architecture` gets. pooling: how the last feature map becomes one vector;
    "default" is the architecture's own. dropped: weight names that begin with one of these and a dot belong to a
    classifier that is not used. pretrained_cfg: timm's, as it came; only what `preprocess` took of it changes a vector.
    """

    architecture: str
    model_args: dict[str, Any]
    pooling: str
    preprocess: Preprocess
    dropped: tuple[str, ...]
    pretrained_cfg: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder that was opened and whose fingerprint is known."""

    folder: Path
    config: NetworkConfig
    fingerprint: str

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def folder_of(model: str) -> Path | None:
    """The folder that a model's name points at, else None: it is a name that timm or the hub knows.

    A folder is meant by `local-dir:PATH`, by any name with a slash (but `hf-hub:…`), and by one at which a config.json lies.
    """
    if model.startswith(_LOCAL):
        return Path(model.removeprefix(_LOCAL)).expanduser()
    if model.startswith(hub.PREFIX):
        return None
    folder = Path(model).expanduser()
    return folder if "/" in model or (folder / CONFIG).is_file() else None


def open_folder(folder: Path) -> Checkpoint:
    """The model in a folder, its weights hashed (0.1 s for 25 million).

    Raises UnknownModel when it is none, is damaged, or its config.json names another fingerprint than its weights give.
    """
    parsed = _read_config(folder)
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
        found = f"; {pickles[0]} may hold a pickle, which can run code: save its weights as {WEIGHTS}" if pickles else ""
        raise UnknownModel(f"{folder} holds no {WEIGHTS}{found}")
    try:
        reader = _READERS.get(parsed.get("format"))
        if reader is None:
            raise UnknownModel(f"format {parsed['format']!r} is not one this version reads")
        config = reader(parsed)
    except BinsightError as error:
        raise UnknownModel(f"{folder / CONFIG}: {error}") from error
    actual, recorded = fingerprint(config, folder / WEIGHTS), parsed.get("fingerprint")
    if recorded not in (None, actual):
        raise UnknownModel(
            f"{folder} is damaged: {CONFIG} says fingerprint {recorded}, its files give {actual}; fetch it again"
        )
    return Checkpoint(folder, config, actual)


def fingerprint(config: NetworkConfig, safetensors: Path) -> str:
    """64 hex digits that two models share only if they give the same vectors.

    sha256 over: the canonical JSON of {architecture, model_args, pooling, preprocess} (keys sorted, no spaces, ASCII;
    `None` arguments and `num_classes` left out) as u32 length + bytes; then for each weight, by name in code point order,
    without the dropped classifier: its name as u32 length + UTF-8, the number of its dimensions as u32, each dimension as
    u64, and its values in row-major order as float32. All numbers are little-endian. Weights stored as float16 or bfloat16
    are widened, which is exact, so that a model saved at half width by rounding differs and one merely widened does not;
    whole numbers (`num_batches_tracked`) become float32 as well.

    Raises UnknownModel when the file is not a sound safetensors file.
    """
    canonical = json.dumps(
        {
            "architecture": config.architecture,
            "model_args": {k: v for k, v in config.model_args.items() if v is not None and k != "num_classes"},
            "pooling": config.pooling,
            "preprocess": config.preprocess.to_json(),
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()
    digest = hashlib.sha256(_u32(len(canonical)) + canonical)
    dropped = tuple(f"{name}." for name in config.dropped)
    for weight in weights.list_weights(safetensors):
        if weight.name.startswith(dropped):
            continue
        name = weight.name.encode()
        digest.update(_u32(len(name)) + name + _u32(len(weight.shape)))
        digest.update(b"".join(size.to_bytes(8, "little") for size in weight.shape))
        for values in weights.float32_chunks(safetensors, weight):
            digest.update(values.data)
    return digest.hexdigest()


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Where what can be made again is kept: $BINSIGHT_CACHE, $XDG_CACHE_HOME/binsight or ~/.cache/binsight."""
    if environ.get("BINSIGHT_CACHE"):
        return Path(environ["BINSIGHT_CACHE"]).expanduser()
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]) / "binsight"
    return Path.home() / ".cache" / "binsight"


def kept_folder(model: str, root: Path) -> Path:
    """Where the copy of a fetched model lies, so that its second start needs no network and no torch."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "_", model)[:60]
    return root / "models" / f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def seal(folder: Path) -> None:
    """Write a folder's fingerprint into its config.json, so that damage is seen when it is opened again."""
    sealed = {**_read_config(folder), "fingerprint": open_folder(folder).fingerprint}
    (folder / CONFIG).write_text(json.dumps(sealed), encoding="utf-8")


def is_sound(folder: Path) -> bool:
    """Whether a folder holds a model that can be opened."""
    try:
        open_folder(folder)
    except UnknownModel:
        return False
    return True


def publish(final: Path, fill: Callable[[Path], None], *, is_good: Callable[[Path], bool]) -> None:
    """Make a cache folder whole or not at all, whoever else is making it at the same time.

    `fill` writes into an empty folder beside `final`, which is then renamed to it. A `final` that is there and good stays;
    one that is not gives way. Raises OSError when the cache cannot be written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=final.parent))
    try:
        made = temporary / "made"
        made.mkdir()
        fill(made)
        for attempt in (1, 2, 3):
            try:
                made.rename(final)
            except OSError:
                if not final.is_dir() or attempt == 3:
                    raise
                if is_good(final):
                    return
                final.rename(temporary / f"bad-{attempt}")
            else:
                return
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what a killed process left a day ago."""
    for left in parent.glob("tmp-*"):
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        if path.stat().st_size > _CONFIG_LIMIT:
            raise UnknownModel(f"{path} is larger than {_CONFIG_LIMIT >> 20} MB; that is no model's config")
        parsed = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise UnknownModel(f"{folder} is no model folder: {CONFIG} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{path} is not JSON ({str(error)[:80]})") from error
    if not isinstance(parsed, dict):
        raise UnknownModel(f"{path} is no JSON object")
    return parsed


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _read_timm(parsed: dict[str, Any]) -> NetworkConfig:
    # An older timm wrote one flat object; the nested one is what save_for_hf writes since 0.9.
    pretrained_cfg = dict(_object(parsed, "pretrained_cfg") if "pretrained_cfg" in parsed else parsed)
    architecture = parsed.get("architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"\w+", architecture):
        raise UnknownModel(f"want 'architecture', a timm name such as 'resnet50'; got {architecture!r}")
    model_args = dict(_object(parsed, "model_args"))
    if forbidden := sorted(_FORBIDDEN_ARGS & model_args.keys()):
        raise UnknownModel(f"'model_args' may not hold {forbidden[0]!r}; leave only what shapes the network")
    model_args.pop("num_classes", None)  # it shapes the classifier, which is dropped
    if model_args.get("in_chans", 3) != 3:
        raise UnknownModel(f"it takes {model_args['in_chans']} channels; binsight reads pictures with 3")
    size = model_args.get("img_size")
    if size is not None and pretrained_cfg.get("fixed_input_size"):  # as timm does when it loads such a folder
        pretrained_cfg["input_size"] = [3, size, size] if isinstance(size, int) else [3, *size]
    classifier = pretrained_cfg.get("classifier") or ()
    dropped = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    if not all(isinstance(name, str) and name for name in dropped):
        raise UnknownModel(f"want 'classifier', a module's name; got {classifier!r}")
    pooling = str(model_args.get("global_pool") or "default")
    return NetworkConfig(architecture, model_args, pooling, Preprocess.from_timm(pretrained_cfg), dropped, pretrained_cfg)


def _object(parsed: dict[str, Any], key: str) -> dict[str, Any]:
    value = parsed.get(key) or {}
    if not isinstance(value, dict):
        raise UnknownModel(f"want {key!r}, an object; got {type(value).__name__}")
    return value


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


_READERS: dict[object, Callable[[dict[str, Any]], NetworkConfig]] = {None: _read_timm}
