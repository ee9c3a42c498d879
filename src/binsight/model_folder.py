"""A trained network written as a model folder, whole or not at all; `checkpoint.open_folder` reads it.

`config.json` (architecture, preprocessing, heads, training, licence, fingerprint), `model.safetensors` (weights named
`backbone.…`, `embedding.…`, `count.…`, `label.…`), `README.md` (the model card), and a `LICENSE` where one is given.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from binsight import checkpoint, weights
from binsight.checkpoint import CONFIG, FORMAT, WEIGHTS, Checkpoint, Heads, NetworkConfig
from binsight.counting import Calibration
from binsight.errors import BadSettings, CannotBeDone
from binsight.network import BinNet, early_kernels, joined, load

CARD, LICENCE = "README.md", "LICENSE"
_COUNTERS = "counter."


def write_model(
    folder: Path,
    net: BinNet,
    config: NetworkConfig,
    heads: Heads,
    *,
    training: Mapping[str, Any],
    licence: str,
    card: str,
    licence_text: str | None = None,
    half: bool = True,
    int8: bool = False,
) -> Checkpoint:
    """The model that now lies in `folder`, opened again from there.

    training: provenance, any JSON object (data, split, seed, figures). licence: its name, one line; licence_text: the file
    LICENSE. half: matrices and kernels as float16; vectors (biases, batch-norm statistics) stay float32, and so do the kernels
    of a backbone's first stages (`early_kernels`) and a tensor that float16 cannot hold. int8: the counters' other kernels in
    eight bits and a scale a row (`weights.eight_bits`), so that twice as many take the same space; of the vectors nothing is.
    A model that is there is replaced once the new one is complete.
    Raises BadSettings when the heads are not the network's, or the folder holds something else than a model of ours;
    UnknownModel when the network has weights that are not finite; CannotBeDone when the folder cannot be written.
    """
    if (net.sizes, net.counters) != (heads.sizes, heads.counters):
        wanted, got = (f"{one.sizes} and {one.counters} counters" for one in (net, heads))
        raise BadSettings(f"want the network's heads {wanted}, got {got}")
    described = {
        "format": FORMAT,
        "architecture": config.architecture,
        "model_args": {key: value for key, value in config.model_args.items() if key != "num_classes"},
        "pooling": config.pooling if config.has_pyramid else str(config.model_args.get("global_pool") or "default"),
        "preprocess": config.preprocess.to_json(),
        "heads": heads.to_json(),
        "training": dict(training),
        "licence": licence,
    }
    texts = {CARD: card} if licence_text is None else {CARD: card, LICENCE: licence_text}
    folder = folder.expanduser().absolute()
    check_place(folder)
    try:
        checkpoint.replace(folder, lambda made: _write(made, net, described, texts, half=half, int8=int8))
    except OSError as error:
        raise CannotBeDone(
            f"cannot write the model {folder} ({error.strerror or error}); free space or give another"
        ) from error
    return checkpoint.open_folder(folder)


def write_joined(
    folder: Path,
    vectors: Checkpoint,
    *counts: Checkpoint,
    licence: str,
    licence_text: str | None = None,
    mirrored: int = 0,
    int8: bool = False,
) -> Checkpoint:
    """A model with the vectors of one and the counts and classes of others, as `network.joined` puts them together.

    Its card and `training` hold all models'. int8: as `write_model`'s. Raises BadSettings when the two do not fit, and as
    `write_model`.
    """
    net, heads = joined(vectors, *counts, mirrored=mirrored)
    cards = [(one.folder / CARD) for one in (vectors, *counts)]
    texts = [
        card.read_text(encoding="utf-8").partition("\n## Licence")[0].rstrip() if card.is_file() else f"`{card.parent.name}`"
        for card in cards
    ]
    card = "\n".join([
        f"# {folder.name}", "",
        f"{1 + len(counts)} models in one: the vectors of the first, the counts of "
        f"{'the second' if len(counts) == 1 else 'the others together'}, from backbones of their own.", "",
        "## Licence", licence or "Not stated. What they were trained on may bind it.", "",
        *(line for text in texts for line in (f"---\n\n{text}", "")),
    ])  # fmt: skip
    told = [_training_of(one) for one in counts]
    training = {"vectors": _training_of(vectors), "counts": told[0] if len(told) == 1 else told}
    return write_model(
        folder, net, vectors.config, heads, training=training, licence=licence, licence_text=licence_text, card=card, int8=int8
    )


def recalibrate(
    opened: Checkpoint, calibration: Calibration, *, note: Mapping[str, Any], folder: Path | None = None
) -> Checkpoint:
    """The same model with another calibration of its counts, in another folder or, by default, in its own.

    note: on what it was fixed, any JSON object; kept as `calibration` in `training`. Raises BadSettings for a model without a
    count head like that, and as `write_model`.
    """
    if opened.heads is None or opened.heads.count is None:
        raise BadSettings(f"{opened.folder} has no count head to calibrate")
    if (opened.heads.count.kind, opened.heads.count.max_count) != (calibration.kind, calibration.max_count):
        raise BadSettings(f"want a calibration of {opened.heads.count}, got {calibration}")
    texts = {name: (opened.folder / name) for name in (CARD, LICENCE)}
    training = _training_of(opened)
    return write_model(
        folder or opened.folder, load(opened), opened.config, replace(opened.heads, count=calibration),
        training={**training, "calibration": dict(note)}, licence=opened.licence,
        card=texts[CARD].read_text(encoding="utf-8") if texts[CARD].is_file() else "",
        licence_text=texts[LICENCE].read_text(encoding="utf-8") if texts[LICENCE].is_file() else None,
        int8=any(weight.scale is not None for weight in weights.list_weights(opened.weights)),
    )  # fmt: skip


def _training_of(model: Checkpoint) -> Any:  # JSON
    return json.loads((model.folder / CONFIG).read_bytes()).get("training") or {"start": model.folder.name}


def _write(made: Path, net: BinNet, described: Mapping[str, Any], texts: Mapping[str, str], *, half: bool, int8: bool) -> None:
    wide = early_kernels(net)
    state: dict[str, Tensor] = {}
    for name, value in net.state_dict().items():
        is_small = int8 and name.startswith(_COUNTERS) and value.ndim > 1 and name not in wide
        if is_small and bool(torch.isfinite(value).all()):  # else it is stored as it is, and refused for that below
            numbers, steps = weights.eight_bits(value.detach().float().cpu().numpy())
            state |= {name: torch.from_numpy(numbers), f"{name}{weights.SCALE}": torch.from_numpy(steps)}
        else:
            state[name] = _stored(value.detach().cpu(), half=half and name not in wide)
    try:
        save_file(state, made / WEIGHTS)
    except SafetensorError as error:  # how it tells of a full disk
        raise OSError(errno.EIO, str(error)) from error
    for name, text in texts.items():
        (made / name).write_text(text, encoding="utf-8")
    (made / CONFIG).write_text(_json(described), encoding="utf-8")
    (made / WEIGHTS).chmod((made / CONFIG).stat().st_mode)  # safetensors lets the owner alone read what it writes
    opened = checkpoint.open_folder(made)
    sealed = {**described, "fingerprint": opened.fingerprint, "identity": opened.identity}
    (made / CONFIG).write_text(_json(sealed), encoding="utf-8")


def _stored(value: Tensor, *, half: bool) -> Tensor:
    value = value.contiguous().clone()  # safetensors refuses tensors that share memory
    if not value.is_floating_point():
        return value
    wide = value.float()
    narrow = wide.half()
    return narrow if half and value.ndim > 1 and bool(torch.isfinite(narrow).all()) else wide


def _json(described: Mapping[str, Any]) -> str:
    try:
        return json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BadSettings(f"want 'training' to be a JSON object without NaN: {error}") from error


def licence_text(file: Path | None) -> str | None:
    """What is to be written beside the model, if anything. Raises BadSettings when it cannot be read as text."""
    try:
        return None if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadSettings(f"--licence-file: cannot read {file}: {why}") from error


def check_place(folder: Path) -> None:
    """What is there may be replaced only when it is nothing, or a model of ours."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        is_ours = json.loads((folder / CONFIG).read_bytes()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise BadSettings(f"{folder} is there and is no binsight model; give a new folder")
