"""A model folder, opened without torch: which network, which pictures it takes, which weights, and its fingerprint.

Two kinds: timm's (`config.json` with `architecture`, `model_args`, `pretrained_cfg`; `model.safetensors`), and ours, whose
`config.json` says `"format": "binsight-model"` and describes heads; `model_folder` writes it. Pickles are never read.
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
from typing import Any, NamedTuple

import numpy as np

from binsight import hub, weights
from binsight.counting import Calibration, logit_columns
from binsight.errors import BinsightError, UnknownModel
from binsight.paths import user_path
from binsight.preprocess import Preprocess

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = "binsight-model"
HEADS = ("embedding", "count", "label")  # what BinNet answers, in this order
PYRAMID = "pyramid"
_LOCAL = "local-dir:"
_COUNTER = "counter"
_UNHASHED = ("count", "label", _COUNTER)  # weights that change no vector
_LARGEST_DIM, _MOST_CLASSES, _MOST_COUNTERS = 65_536, 100_000, 16
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
    "default" is the architecture's own, "pyramid" has beside it what `pyramid` reads. dropped: weight names that begin with
    one of these and a dot belong to a classifier that is not used. pretrained_cfg: timm's, as it came; only what
    `preprocess` took of it changes a vector.
    """

    architecture: str
    model_args: dict[str, Any]
    pooling: str
    preprocess: Preprocess
    dropped: tuple[str, ...]
    pretrained_cfg: dict[str, Any]

    @property
    def has_pyramid(self) -> bool:
        return self.pooling == PYRAMID


@dataclass(frozen=True, slots=True)
class Heads:
    """What a network answers besides its pooled features.

    embedding: the vector's dimension; None: the pooled features are the vector. count: how the count head's logits become
    counts. classes: the names that the label head tells apart, in the order of its logits. counters: how many backbones of
    their own these two have, of the same architecture, so that learning to count leaves the vectors as they are; the two heads
    then take the features of all of them, one after the other. mirrored: how many of the counters, the last ones, look at the
    mirror image.
    """

    embedding: int | None = None
    count: Calibration | None = None
    classes: tuple[str, ...] | None = None
    counters: int = 0
    mirrored: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each head that is there puts out."""
        sizes = {
            "embedding": self.embedding,
            "count": None if self.count is None else logit_columns(self.count.kind, self.count.max_count),
            "label": None if self.classes is None else len(self.classes),
        }
        return {name: size for name, size in sizes.items() if size is not None}

    def to_json(self) -> dict[str, Any]:
        """A JSON object with a key for each head that is there."""
        told: dict[str, Any] = {}
        if self.embedding is not None:
            told["embedding"] = {"dim": self.embedding}
        if self.count is not None:
            told["count"] = self.count.to_json()
        if self.classes is not None:
            told["label"] = {"classes": list(self.classes)}
        if self.counters:
            told[_COUNTER] = {} if self.counters == 1 else {"members": self.counters}
            if self.mirrored:
                told[_COUNTER]["mirrored"] = self.mirrored
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Heads:
        """What `to_json` gave. Raises UnknownModel for a head of another name, or one that is not as it should be."""
        if unknown := sorted(told.keys() - {*HEADS, _COUNTER}):
            raise UnknownModel(f"a head {unknown[0]!r} is not one this version knows; it knows {', '.join(HEADS)}")
        if wrong := [name for name, value in told.items() if not isinstance(value, dict)]:
            raise UnknownModel(f"want the head {wrong[0]!r} to be an object, got {type(told[wrong[0]]).__name__}")
        embedding = told["embedding"].get("dim") if "embedding" in told else None
        if "embedding" in told and (type(embedding) is not int or not 1 <= embedding <= _LARGEST_DIM):
            raise UnknownModel(f"want the embedding's 'dim' from 1 to {_LARGEST_DIM}, got {embedding!r}")
        count = _calibration(told["count"]) if "count" in told else None
        classes = told["label"].get("classes") if "label" in told else None
        if "label" in told and not _are_names(classes):
            raise UnknownModel("want the label head's 'classes', two or more different names")
        if _COUNTER in told and count is None and classes is None:
            raise UnknownModel("a counter, the backbone of the count and label heads, is there without either")
        counters = told[_COUNTER].get("members", 1) if _COUNTER in told else 0
        if _COUNTER in told and (type(counters) is not int or not 1 <= counters <= _MOST_COUNTERS):
            raise UnknownModel(f"want the counter's 'members' from 1 to {_MOST_COUNTERS}, got {counters!r}")
        mirrored = told[_COUNTER].get("mirrored", 0) if _COUNTER in told else 0
        if type(mirrored) is not int or not 0 <= mirrored <= counters:
            raise UnknownModel(f"want the counter's 'mirrored' from 0 to its {counters} members, got {mirrored!r}")
        return cls(embedding, count, None if classes is None else tuple(classes), counters, mirrored)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder that was opened and whose fingerprint is known.

    fingerprint: shared only by models that give the same vectors. identity: shared only by models of which every head
    answers the same; what is made from a model (an export) is kept under it. heads: None for a timm folder. licence: of the
    weights, as config.json says; "" where it does not.
    """

    folder: Path
    config: NetworkConfig
    fingerprint: str
    identity: str
    heads: Heads | None = None
    licence: str = ""

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def folder_of(model: str) -> Path | None:
    """The folder that a model's name points at, else None: it is a name that timm or the hub knows.

    A folder is meant by `local-dir:PATH`, by any name with a slash (but `hf-hub:…`), and by one at which a config.json lies.
    """
    if model.startswith(_LOCAL):
        return user_path(model.removeprefix(_LOCAL), error=UnknownModel)
    if model.startswith(hub.PREFIX):
        return None
    folder = user_path(model, error=UnknownModel)
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
        kind = parsed.get("format")
        reader = _READERS.get(kind) if kind is None or isinstance(kind, str) else None
        if reader is None:
            raise UnknownModel(f"format {kind!r} is not one this version reads")
        config, heads, licence = reader(parsed)
    except BinsightError as error:
        raise UnknownModel(f"{folder / CONFIG}: {error}") from error
    if heads is not None:
        _check_weights(folder / WEIGHTS, heads, has_pyramid=config.has_pyramid)
    actual = fingerprint(config, folder / WEIGHTS)
    identity = actual if heads is None else _identity(config, heads, actual, folder / WEIGHTS)
    for key, value in (("fingerprint", actual), ("identity", identity)):
        if parsed.get(key) not in (None, value):
            raise UnknownModel(
                f"{folder} is damaged: {CONFIG} says {key} {parsed[key]}, its files give {value}; fetch it again"
            )
    return Checkpoint(folder, config, actual, identity, heads, licence)


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
        if not weight.name.startswith(dropped):
            _update(digest, safetensors, weight)
    return digest.hexdigest()


def _identity(config: NetworkConfig, heads: Heads, fingerprint: str, safetensors: Path) -> str:
    """sha256 over the fingerprint and the canonical JSON of what the heads are, as text, and the weights that it leaves out."""
    described = json.dumps(heads.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(fingerprint.encode() + described.encode())
    left_out = tuple(f"{name}." for name in config.dropped)
    for weight in weights.list_weights(safetensors):
        if weight.name.startswith(left_out):
            _update(digest, safetensors, weight)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, safetensors: Path, weight: weights.Weight) -> None:
    name = weight.name.encode()
    digest.update(_u32(len(name)) + name + _u32(len(weight.shape)))
    digest.update(b"".join(size.to_bytes(8, "little") for size in weight.shape))
    for values in weights.float32_chunks(safetensors, weight):
        digest.update(values.data)


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


def replace(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder of the user's whole or not at all: `fill` writes into an empty one beside it, which takes its place.

    What was there is gone then. Raises OSError when it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made = temporary / "made"
        made.mkdir()
        fill(made)
        for path in (*made.iterdir(), made):
            _sync(path)
        if folder.exists():
            folder.rename(temporary / "old")
        made.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


class _Described(NamedTuple):
    """What a config.json says."""

    config: NetworkConfig
    heads: Heads | None
    licence: str


def _read_timm(parsed: dict[str, Any]) -> _Described:
    # An older timm wrote one flat object; the nested one is what save_for_hf writes since 0.9.
    pretrained_cfg = dict(_object(parsed, "pretrained_cfg") if "pretrained_cfg" in parsed else parsed)
    architecture, model_args = _architecture(parsed)
    model_args.pop("num_classes", None)  # it shapes the classifier, which is dropped
    size = model_args.get("img_size")
    if size is not None and pretrained_cfg.get("fixed_input_size"):  # as timm does when it loads such a folder
        if not isinstance(size, int | list):
            raise UnknownModel(f"want 'img_size' to be one or two whole numbers, got {size!r}")
        pretrained_cfg["input_size"] = [3, size, size] if isinstance(size, int) else [3, *size]
    classifier = pretrained_cfg.get("classifier") or ()
    dropped = (
        (classifier,) if isinstance(classifier, str) else tuple(classifier) if isinstance(classifier, list | tuple) else (None,)
    )
    if not all(isinstance(name, str) and name for name in dropped):
        raise UnknownModel(f"want 'classifier', a module's name; got {classifier!r}")
    pooling = str(model_args.get("global_pool") or "default")
    config = NetworkConfig(architecture, model_args, pooling, Preprocess.from_timm(pretrained_cfg), dropped, pretrained_cfg)
    return _Described(config, None, str(pretrained_cfg.get("license") or ""))


def _read_ours(parsed: dict[str, Any]) -> _Described:
    architecture, model_args = _architecture(parsed)
    pooling = str(model_args.get("global_pool") or "default")
    if parsed.get("pooling") == PYRAMID:
        pooling = PYRAMID
    if parsed.get("pooling", pooling) != pooling:
        raise UnknownModel(f"'pooling' is {parsed['pooling']!r}, but 'model_args' say {pooling!r}")
    licence = parsed.get("licence", "")
    if not isinstance(licence, str) or len(licence) > 200 or not licence.isprintable():
        raise UnknownModel("want 'licence', a line of at most 200 characters")
    preprocess = Preprocess.from_json(_object(parsed, "preprocess"))
    config = NetworkConfig(architecture, model_args, pooling, preprocess, _UNHASHED, {})
    return _Described(config, Heads.from_json(_object(parsed, "heads")), licence)


def _architecture(parsed: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    architecture = parsed.get("architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"\w+", architecture):
        raise UnknownModel(f"want 'architecture', a timm name such as 'resnet50'; got {architecture!r}")
    model_args = dict(_object(parsed, "model_args"))
    if forbidden := sorted(_FORBIDDEN_ARGS & model_args.keys()):
        raise UnknownModel(f"'model_args' may not hold {forbidden[0]!r}; leave only what shapes the network")
    try:
        json.dumps(model_args, allow_nan=False)
    except ValueError as error:
        raise UnknownModel(f"'model_args' hold a number that is not finite: {error}") from error
    if model_args.get("in_chans", 3) != 3:
        raise UnknownModel(f"it takes {model_args['in_chans']} channels; binsight reads pictures with 3")
    return architecture, model_args


def _calibration(told: dict[str, Any]) -> Calibration:
    try:
        return Calibration.from_json(told)
    except BinsightError as error:
        raise UnknownModel(f"the count head: {error}") from error


def _are_names(classes: object) -> bool:
    if not isinstance(classes, list) or not 2 <= len(classes) <= _MOST_CLASSES:
        return False
    return all(isinstance(name, str) and name for name in classes) and len(set(classes)) == len(classes)


def _check_weights(safetensors: Path, heads: Heads, *, has_pyramid: bool) -> None:
    """Raises UnknownModel when the heads' weights are not those that config.json describes, or a weight is not finite."""
    held = {weight.name: weight for weight in weights.list_weights(safetensors)}
    sizes = heads.sizes
    known = {"backbone", *sizes} | ({_COUNTER} if heads.counters else set())
    if strange := [name for name in held if name.partition(".")[0] not in known]:
        raise UnknownModel(f"{safetensors} holds {strange[0]!r}, which belongs to no head that {CONFIG} describes")
    for head, size in sizes.items():
        if has_pyramid and head == "embedding":
            continue  # layers of their own, which are compared when the network is built
        shapes = [held[name].shape if name in held else None for name in (f"{head}.weight", f"{head}.bias")]
        if shapes[0] is None or len(shapes[0]) != 2 or (shapes[0][0], shapes[1]) != (size, (size,)):
            wanted = f"want {head}.weight ({size}, features) and {head}.bias ({size},)"
            raise UnknownModel(f"{safetensors}: {wanted}, got {shapes[0]} and {shapes[1]}")
    for weight in held.values():
        if not all(np.isfinite(values).all() for values in weights.float32_chunks(safetensors, weight)):
            raise UnknownModel(f"{safetensors}: {weight.name!r} holds values that are not finite; its training went wrong")


def _object(parsed: dict[str, Any], key: str) -> dict[str, Any]:
    value = parsed.get(key) or {}
    if not isinstance(value, dict):
        raise UnknownModel(f"want {key!r}, an object; got {type(value).__name__}")
    return value


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


_READERS: dict[str | None, Callable[[dict[str, Any]], _Described]] = {None: _read_timm, FORMAT: _read_ours}
