"""Which layers of a network must stay in float32 so that bfloat16 does not change what it says.

bfloat16 keeps eight bits. Most networks do not mind (ResNet-50: mean cosine 0.9997 to float32 on photos of bins); those
built on depthwise convolutions may (MobileNetV2: 0.990). For these the export is measured on made pictures, and layers are
put back to float32 from the input on, where there are few channels and every later layer inherits the error, until the mean
cosine is enough. MobileNetV2 then keeps 0.9991 on bins at 1.4 times the speed of float32.
"""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from binsight import vectors

Plan: TypeAlias = Literal["bf16", "mixed", "fp32"]
LEAST_COSINE = 0.999
_PICTURES = 8
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # of /proc/cpuinfo on x86 and Arm
_SILENT = ("Const", "Parameter", "Result")
_log = logging.getLogger(__name__)


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX, AVX-512 BF16, Arm BF16); without it bf16 is slower than fp32."""
    try:
        return not _BF16_FLAGS.isdisjoint(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False


def plan(core: Any, model: Path, mixed: Path, *, size: tuple[int, int], exact: Any) -> Plan:  # ov.Core, ov.CompiledModel
    """How an exported network is best run on this CPU; where the answer is "mixed", the file `mixed` is written.

    core: an ov.Core. model: model.xml, with model.bin beside it; both are read by `mixed` too. exact: an ov.CompiledModel of it
    in float32, of any batch size.
    """
    pixels = dead_leaves(_PICTURES, size)
    wanted = _answers(exact, pixels)

    def run(xml: Path) -> list[NDArray[np.float32]]:
        network = core.read_model(xml, model.with_suffix(".bin"))
        network.reshape([_PICTURES, *size, 3])
        return _answers(core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}), pixels)

    def cosine(kept: frozenset[str]) -> float:
        _mark(model, mixed, kept)
        try:
            return agreement(run(mixed), wanted)
        except RuntimeError as error:  # OpenVINO does not take every mixture
            _log.info("a mixture of precisions does not compile: %s", error)
            return -1.0

    found, kept = choose(_units(model), cosine)
    if found == "mixed":
        _mark(model, mixed, kept)
    else:
        mixed.unlink()
    return found


def _answers(compiled: Any, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:  # ov.CompiledModel
    said = compiled({0: pixels})
    return [said[place] for place in range(len(compiled.outputs))]


def agreement(said: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]) -> float:
    """How nearly two runs say the same: the least over their answers, the first of which are vectors and the rest logits.

    Of vectors (n, dim) the mean cosine. Of logits (n, outcomes), which may differ by a constant or have a mean far from zero,
    what the same relative error would make of a cosine: 1 − ½ Σ (a − b)² / Σ (b − mean of b over the pictures)².
    """
    cosines = [float((vectors.normalise(said[0]) * vectors.normalise(wanted[0])).sum(axis=1).mean())]
    for ours, theirs in zip(said[1:], wanted[1:], strict=True):
        spread = float(np.square(theirs - theirs.mean(axis=0)).sum())
        cosines.append(1 - 0.5 * float(np.square(ours - theirs).sum()) / spread if spread else 1.0)
    return min(cosines)


def choose(units: Sequence[frozenset[str]], cosine: Callable[[frozenset[str]], float]) -> tuple[Plan, frozenset[str]]:
    """Keep the fewest units in float32, from the first on, for which the cosine is enough. Returns "mixed" with the names of
    their layers; "bf16" or "fp32" with none.

    cosine: the mean cosine to float32 when the layers of these names are kept in float32; it should grow with them.
    """
    none: frozenset[str] = frozenset()
    pure = cosine(none)
    if pure >= LEAST_COSINE:
        return "bf16", none
    enough: tuple[frozenset[str], float] | None = None
    few, many = 1, len(units)
    while few <= many:
        middle = (few + many) // 2
        tried = none.union(*units[:middle])
        found = cosine(tried)
        if found >= LEAST_COSINE:
            enough, many = (tried, found), middle - 1
        else:
            few = middle + 1
    if enough is None:
        _log.info("bfloat16 gives a mean cosine of %.4f to float32, so float32 it is; precision='bf16' insists", pure)
        return "fp32", none
    kept, reached = enough
    _log.info("%d layers stay in float32: mean cosine %.4f rather than %.4f", len(kept), reached, pure)
    return "mixed", kept


@lru_cache(maxsize=1)  # a process that loads several models draws them once
def dead_leaves(n: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Dim, pale pictures of discs that hide one another, uint8 (n, h, w, 3), always the same and not to be written to.

    Their edges and sizes are distributed as in photos (Lee, Mumford and Huang 2001), which noise is not. Dim and pale as
    in a bin, since that is where bfloat16 errs most: the error of MobileNetV2 on these is that on photos of bins.
    """
    height, width = size
    down, across = np.arange(height), np.arange(width)
    pictures = np.empty((n, height, width, 3), np.float32)
    for number in range(n):
        rng = np.random.default_rng([20260, number])
        picture = pictures[number]
        picture[:] = rng.uniform(0, 255, 3)
        radii = 0.03 / np.sqrt(1 - rng.uniform(0, 0.995, 300)) * min(size)  # density falls with the radius cubed
        for radius in np.minimum(radii, 0.6 * min(size)):
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            colour = 0.5 * rng.uniform(0, 255) + 0.5 * rng.uniform(0, 255, 3)
            top, left = max(0, int(y - radius)), max(0, int(x - radius))
            area = picture[top : int(y + radius) + 1, left : int(x + radius) + 1]
            rows, columns = down[top : top + area.shape[0], None], across[None, left : left + area.shape[1]]
            disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            shade = 1 + rng.normal(0, 0.4) * (columns - width / 2) / width  # a gradient across
            np.copyto(area, colour * shade[..., None], where=disc[..., None])
        picture += rng.normal(0, 4, picture.shape)
        picture += 0.65 * (picture.mean() - picture) - 0.4 * picture.mean()  # a third of the contrast, 0.6 of the light
    drawn = np.clip(pictures, 0, 255).astype(np.uint8)
    drawn.setflags(write=False)
    return drawn


def _units(model: Path) -> list[frozenset[str]]:
    """Names of layers that are kept or not together, from the input on, in a network with depthwise convolutions.

    Each is a depthwise convolution, the convolution after it, and what lies around them up to the next depthwise one. Of
    networks side by side (`binsight join`) a unit holds what is equally far from the input in all of them.
    """
    tree = ET.parse(model)  # noqa: S314  # our own export, in topological order
    inputs: dict[str, list[str]] = {}
    for edge in tree.iterfind("edges/edge"):
        inputs.setdefault(edge.get("to-layer", ""), []).append(edge.get("from-layer", ""))
    units: list[set[str]] = [set()]
    passed: dict[str, int] = {}  # depthwise convolutions from the input up to a layer, by its id
    for layer in _layers(tree):
        id_ = layer.get("id", "")
        passed[id_] = max((passed[before] for before in inputs.get(id_, ())), default=0)
        passed[id_] += layer.get("type") == "GroupConvolution"
        if layer.get("type") not in _SILENT:
            while len(units) < passed[id_]:
                units.append(set())
            units[max(0, passed[id_] - 1)].add(layer.get("name", ""))
    return [frozenset(unit) for unit in units] if any(passed.values()) else []


def _mark(model: Path, marked: Path, kept: frozenset[str]) -> None:
    """Write the model with these layers marked `precise`, which OpenVINO's CPU plugin computes in float32."""
    tree = ET.parse(model)  # noqa: S314  # our own export
    for layer in _layers(tree):
        if layer.get("name") in kept:
            info = layer.find("rt_info")
            if info is None:
                info = ET.Element("rt_info")
                layer.insert(1 if layer.find("data") is not None else 0, info)
            ET.SubElement(info, "attribute", name="precise", version="0")
    tree.write(marked)


def _layers(tree: ET.ElementTree[Any]) -> list[ET.Element]:
    layers = tree.find("layers")
    return [] if layers is None else list(layers)
