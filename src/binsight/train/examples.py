"""Labelled pictures and a split → what a run learns from: decoded pixels (or a frozen backbone's features) and targets."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from binsight import openvino_export
from binsight.data.labelled import LabelledPicture, LabelledSet, open_labelled
from binsight.data.source import Refusal
from binsight.data.splits import TEST, TRAIN, VAL, Split, SplitRow, contradiction, leak, make_split, read_split
from binsight.errors import BadSettings, BadSource, CannotBeDone, StoreDamaged
from binsight.network import BinNet
from binsight.preprocess import Preprocess
from binsight.store.files import crc_of_file
from binsight.train.augment import DRAWS, augment
from binsight.train.cache import open_pixels
from binsight.train.config import TrainConfig
from binsight.train.datamodule import UNKNOWN, Examples
from binsight.train.losses import Relation
from binsight.train.records import record_targets
from binsight.train.stages import FrozenStages

Say = Callable[[str], None]
_BATCH = 64
_SHOWN = 20  # refused pictures that are told one by one


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Examples, the classes their labels number, the split they follow, and what was left out."""

    examples: Examples
    classes: tuple[str, ...]
    labelled: LabelledSet
    split: Split
    refused: tuple[Refusal, ...]
    key: str  # of the decoded pixels


def prepare(config: TrainConfig, preprocess: Preprocess, *, cache: Path, say: Say) -> Prepared:
    """Everything that a run reads, with warnings for a split that leaks.

    Raises BadSource for a split that names no picture of the source, no training or validation pictures, or a class of
    which there is none in training; BadSettings for a head that the data has no labels for.
    """
    labelled = open_labelled(config.data)
    split = read_split(config.split, allow_leak=True)
    by_uri = {picture.uri: picture for picture in labelled.pictures}
    rows, left_out = _agreed(split, labelled)
    if left_out:
        say(
            f"warning: {len(left_out)} of {len(split.rows)} pictures of {config.split} are left out: "
            f"{config.data} does not hold them, or says another count or class"
        )
    _warn_of_leak(replace(split, rows=rows), labelled, say)
    if {row.split for row in rows} == {TRAIN, TEST}:
        rows = _with_validation(replace(split, rows=rows), labelled, config.seed)
        split = replace(split, rows=rows)
        held = sum(row.split == VAL for row in rows)
        say(f"{config.split} has no val part: {held} of its training pictures choose and calibrate, and are not learnt from")
    names = {row.path: row.split for row in rows}
    if not {TRAIN, VAL} <= set(names.values()):
        raise BadSource(
            f"want train and val pictures of {config.data} in {config.split}, got "
            f"{', '.join(sorted(set(names.values()))) or 'none'}; make them with `binsight data split --fractions 60/20/20`"
        )
    used = [row.path for row in rows if row.split in (TRAIN, VAL)]
    pixels = open_pixels(labelled, used, preprocess, root=cache, progress=None)
    refused = (*left_out, *pixels.refused)
    for refusal in refused[:_SHOWN]:
        say(f"refused: {refusal.path}: {refusal.error}")
    if len(refused) > _SHOWN:
        say(f"refused: {len(refused) - _SHOWN} more")
    pictures = [by_uri[uri] for uri in pixels.uris]
    of_split = np.array([names[uri] for uri in pixels.uris])
    classes = _classes(pictures, of_split == TRAIN, config)
    _check_heads(pictures, of_split == VAL, classes, config)
    place = {name: number for number, name in enumerate(classes)}
    examples = Examples(
        inputs=pixels.pixels,
        counts=np.array([UNKNOWN if one.count is None else one.count for one in pictures], dtype=np.int64),
        labels=np.array([UNKNOWN if one.label is None else place[one.label] for one in pictures], dtype=np.int64),
        relation=Relation([_keys(one) for one in pictures]),
        names=pixels.uris,
        train=np.flatnonzero(of_split == TRAIN),
        val=np.flatnonzero(of_split == VAL),
        records=record_targets(pictures, np.flatnonzero(of_split == TRAIN)) if config.records_weight else None,
    )
    if config.records_weight and examples.records is None:
        raise BadSettings(f"--records-weight: {config.data} says nothing of its pictures but counts and classes; leave it out")
    return Prepared(examples, classes, labelled, split, refused, pixels.key)


def _agreed(split: Split, labelled: LabelledSet) -> tuple[tuple[SplitRow, ...], tuple[Refusal, ...]]:
    """Rows whose pictures the data hold and do not contradict; of the others, why they are left out."""
    by_uri = {picture.uri: picture for picture in labelled.pictures}
    known = {refusal.path: refusal.error for refusal in labelled.refused}
    why = {row.path: contradiction(row, by_uri.get(row.path)) for row in split.rows}
    refused = tuple(Refusal(path, known.get(path, error)) for path, error in why.items() if error)
    return tuple(row for row in split.rows if not why[row.path]), refused


def _with_validation(split: Split, labelled: LabelledSet, seed: int) -> tuple[SplitRow, ...]:
    """The rows, a tenth of the training ones moved into val, parted as the split itself is."""
    is_training = {row.path for row in split.rows if row.split == TRAIN}
    training = replace(labelled, pictures=tuple(one for one in labelled.pictures if one.uri in is_training))
    held = {row.path for row in make_split(training, by=split.by, fractions=(90, 10), seed=seed).rows if row.split == TEST}
    return tuple(replace(row, split=VAL) if row.path in held else row for row in split.rows)


def _warn_of_leak(split: Split, labelled: LabelledSet, say: Say) -> None:
    """By the data's own products, too: the groups that the split's file names may be of another making."""
    if all(row.split == TRAIN for row in split.rows):
        return
    found = leak(split, labelled)
    if found.is_leaking or split.by == "random":
        say(
            f"warning: the split parts product groups: {found.group_share:.0%} of the validation and test pictures have one of "
            "their group in training, so figures on them are too good; use `binsight data split --by group`"
        )


def with_features(
    prepared: Prepared, net: BinNet, preprocess: Preprocess, fingerprint: str, *, cache: Path, device: torch.device
) -> Examples:
    """The examples with a frozen backbone's features in place of pixels, of each picture and of its mirror image.

    Computed once for a backbone (its `fingerprint`) and a set of pictures (by OpenVINO on a CPU), and kept. Raises
    CannotBeDone when they cannot be kept.
    """
    examples = prepared.examples
    key = hashlib.sha256(f"{prepared.key} {fingerprint} {preprocess.to_json()} {net.features_dim}".encode()).hexdigest()
    file = cache / "features" / f"{key[:32]}-{device.type}.npy"
    wanted = (len(examples.counts), 2, net.features_dim)
    kept = _kept(file, wanted, np.float32)
    if kept is not None:
        return replace(examples, inputs=kept)
    features = np.empty(wanted, np.float32)
    run = _runner(net, preprocess, key, cache, device)
    for at in range(0, len(features), _BATCH):
        pixels = np.ascontiguousarray(examples.inputs[at : at + _BATCH])
        for view, seen in enumerate((pixels, np.ascontiguousarray(pixels[:, :, ::-1]))):
            features[at : at + _BATCH, view] = run(seen)
    with _kept_as(file) as out:
        np.save(out, features)
    return replace(examples, inputs=features)


def with_views(
    prepared: Prepared, net: BinNet, stages: FrozenStages, config: TrainConfig, fingerprint: str, *, cache: Path, say: Say
) -> Examples:
    """The examples with maps of the frozen stages in place of pixels: of each picture, and of config.views augmented ones.

    Computed once in float32 for such stages, pictures, augmentation and seed, and kept in float16 in a file that is mapped.
    Raises CannotBeDone when they cannot be kept.
    """
    examples = prepared.examples
    chosen = [config.freeze, config.views, config.augment, config.crop, config.seed]
    key = hashlib.sha256(f"{prepared.key} {fingerprint} {json.dumps(chosen)}".encode()).hexdigest()
    file = cache / "features" / f"{key[:32]}-views.npy"
    device = net.mean.device
    planes = net.planes(torch.from_numpy(examples.inputs[:1].copy()).to(device))
    shape = (len(examples.counts), 1 + config.views, *stages.maps(planes).shape[1:])
    maps = _kept(file, shape, np.float16)
    if maps is None:
        gigabytes = 2 * math.prod(shape) / 1e9
        say(
            f"{config.views} augmented views of each picture pass the frozen stages once; {gigabytes:.1f} GB are kept in {file}"
        )
        with _kept_as(file) as out:
            np.lib.format.write_array_header_1_0(out, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for at in range(0, shape[0], _BATCH):
                out.write(_views(examples.inputs[at : at + _BATCH], net, stages, config, at).tobytes())
        maps = np.load(file, mmap_mode="r", allow_pickle=False)
    return replace(examples, inputs=maps)


def _kept(file: Path, shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> NDArray[Any] | None:
    """What an earlier run has kept, mapped; None where there is nothing, or it is damaged and has to be made again."""
    try:
        if f"{crc_of_file(file):08x}" != _crc_beside(file).read_text(encoding="ascii"):
            return None
        found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, StoreDamaged):
        return None
    return found if found.shape == shape and found.dtype == dtype else None


def _views(pixels: NDArray[np.uint8], net: BinNet, stages: FrozenStages, config: TrainConfig, at: int) -> NDArray[np.float16]:
    """float16 (n, 1 + views, channels, h', w') of pictures whose first is the at-th of all."""
    device = net.mean.device
    plain = torch.from_numpy(np.array(pixels)).to(device)
    found: list[NDArray[np.float16]] = []
    for view in range(1 + config.views):
        planes = plain.permute(0, 3, 1, 2).float()
        if view:
            seed = int(np.random.SeedSequence([config.seed, at, view]).generate_state(1)[0])
            draws = torch.rand(len(plain), DRAWS, generator=torch.Generator().manual_seed(seed))
            planes = augment(planes, draws.to(device), strength=config.augment, crop=config.crop)
        planes = net.planes(planes.permute(0, 2, 3, 1)).contiguous(memory_format=torch.channels_last)
        maps = stages.maps(planes).half()
        if not bool(torch.isfinite(maps).all()):
            raise BadSettings(f"the frozen stages of {config.backbone} say more than float16 holds; train without --views")
        found.append(maps.cpu().numpy())
    return np.stack(found, axis=1)


@contextmanager
def _kept_as(file: Path) -> Iterator[IO[bytes]]:
    """A file that is there whole or not at all. Written, not mapped: on a full disk a mapped page ends the process."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        crc = f"{crc_of_file(beside):08x}"
        beside.replace(file)
        _crc_beside(file).write_text(crc, encoding="ascii")
    except OSError as error:
        raise CannotBeDone(f"cannot keep features in {file}: {error}; free some space or set BINSIGHT_CACHE") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _crc_beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.crc")


def _runner(
    net: BinNet, preprocess: Preprocess, key: str, cache: Path, device: torch.device
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What computes pooled features fastest here: OpenVINO on a CPU, else torch."""
    alone = BinNet(net.backbone, sizes={}, mean=preprocess.mean, std=preprocess.std, has_pyramid=net.pyramid is not None).eval()
    if device.type == "cpu":
        try:
            exported = openvino_export.export(alone, size=preprocess.size, fingerprint=key, root=cache)
            return openvino_export.OpenVinoRuntime(exported, plan=exported.plan or "fp32").run
        except openvino_export.NotConverted:
            pass  # torch does it, only slower
    alone.to(device)

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found: NDArray[np.float32] = alone(torch.from_numpy(pixels).to(device))["embedding"].float().cpu().numpy()
        return found

    return run


def _keys(picture: LabelledPicture) -> Sequence[str]:
    """What makes two pictures positives: a shared product, else the same class, else the same group."""
    if picture.products:
        return [f"product {one}" for one in picture.products]
    if picture.label is not None:
        return [f"class {picture.label}"]
    return [f"group {picture.group}"] if picture.group is not None else []


def _classes(pictures: Sequence[LabelledPicture], is_train: NDArray[np.bool_], config: TrainConfig) -> tuple[str, ...]:
    classes = sorted({one.label for one in pictures if one.label is not None})
    if not classes or not config.label_weight:
        return tuple(classes)
    learnt = {one.label for one, here in zip(pictures, is_train, strict=True) if here}
    if unseen := [name for name in classes if name not in learnt]:
        raise BadSource(f"the class {unseen[0]!r} has no training picture in {config.split}; split again, or take it out")
    return tuple(classes)


def _check_heads(
    pictures: Sequence[LabelledPicture], is_val: NDArray[np.bool_], classes: Sequence[str], config: TrainConfig
) -> None:
    counted = config.count_head != "none" and config.count_weight and any(one.count is not None for one in pictures)
    named = bool(classes) and config.label_weight
    if not counted and not named and not config.embedding_weight:
        raise BadSettings(f"nothing to learn: {config.data} has neither counts nor classes for the heads that are asked for")
    if len(classes) == 1 and named:
        raise BadSource(f"want at least two classes, got only {classes[0]!r}")
    held = [one for one, here in zip(pictures, is_val, strict=True) if here]
    for what, is_wanted, is_there in (
        ("count", counted, any(one.count is not None for one in held)),
        ("class", named, any(one.label is not None for one in held)),
    ):
        if is_wanted and not is_there:
            raise BadSource(f"no validation picture in {config.split} has a {what} to choose the best epoch by; split again")
