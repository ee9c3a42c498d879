"""A safetensors file read with numpy alone, its header trusted in nothing.

A weight may be stored in eight bits: NAME holds whole numbers from −127 to 127, NAME.scale (float32, one a row) what one of
them is worth. It is read as one weight of real numbers.

The format (github.com/huggingface/safetensors, "Format"): 8 bytes little-endian header length N, N bytes of JSON that
maps each name to `dtype`, `shape` and `data_offsets` [begin, end), then the data. Read here rather than by
`safetensors.numpy`, which knows no bfloat16 and holds a whole file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from binsight.errors import UnknownModel

HEADER_LIMIT = 8 << 20  # bytes; a 300-layer network needs 30 KB. Parsed JSON takes some ten times its size.
SCALE = ".scale"  # after a weight's name: what a step of its whole numbers is worth, row by row
_CHUNK = 1 << 20  # values widened at a time: 4 MB
_BF16, _INT8, _F32 = "BF16", "I8", "F32"
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", _BF16: "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "<u1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight:
    """Where one tensor lies in a file: its name, type, shape, and its first byte counted from the file's start.

    scale: where that of its whole numbers lies; None for a weight that is stored as it is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    scale: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def list_weights(path: Path) -> list[Weight]:
    """The tensors of a safetensors file, by name in code point order; a scale is part of its weight.

    Raises UnknownModel when the file is not there, is no safetensors file, or claims what it does not hold: a header
    over 8 MB or past the end, a type we do not read, data outside the file, overlapping, with holes, or of the wrong length.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            header_length = int.from_bytes(file.read(8), "little")
            if length < 8 or header_length > min(HEADER_LIMIT, length - 8):
                raise _damaged(path, f"its header claims {header_length} bytes, the file has {length}")
            header = _parse(path, file.read(header_length))
    except OSError as error:
        raise UnknownModel(f"{path} cannot be read ({error.strerror}); a model folder needs model.safetensors") from error
    told = header.pop("__metadata__", {})
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise UnknownModel(f"{path} is damaged: its __metadata__ is no object of texts")
    data_start = 8 + header_length
    weights, end = [], 0
    for name, entry in sorted(header.items(), key=lambda pair: _begin(path, *pair)):
        weight, begin, stop = _weight(path, name, entry, data_start)
        if begin != end:
            raise _damaged(path, f"{name!r} begins at byte {begin} of the data, the one before it ends at {end}")
        weights.append(weight)
        end = stop
    if data_start + end != length:
        raise _damaged(path, f"its weights end at byte {data_start + end}, the file has {length}")
    return sorted(_scaled(path, weights), key=lambda weight: weight.name)


def eight_bits(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight (rows, …) as whole numbers from −127 to 127 and what a step is worth in each row, float32 (rows,).

    The largest of each row is exact, every other at most half a step off. Raises ValueError for one that is not finite.

    >>> numbers, steps = eight_bits(np.array([[2.54, -1.0], [0.0, 0.0]], np.float32))
    >>> numbers.tolist(), [round(float(step), 4) for step in steps]
    ([[127, -50], [0, 0]], [0.02, 1.0])
    """
    largest = np.abs(values.reshape(len(values), -1)).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise ValueError("a weight that is not finite has no scale")
    steps = (largest / 127).astype(np.float32)
    steps[steps == 0] = 1  # a row of zeros, or of numbers too small for a step of their own
    by_row = steps.reshape(-1, *[1] * (values.ndim - 1))
    return np.clip(np.rint(values / by_row), -127, 127).astype(np.int8), steps


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every weight of a safetensors file as float32, by name. Raises UnknownModel as `list_weights`."""
    found: dict[str, NDArray[np.float32]] = {}
    for weight in list_weights(path):
        values = np.empty(weight.size, np.float32)
        start = 0
        for chunk in float32_chunks(path, weight):
            values[start : start + len(chunk)] = chunk
            start += len(chunk)
        found[weight.name] = values.reshape(weight.shape)
    return found


def float32_chunks(path: Path, weight: Weight) -> Iterator[NDArray[np.float32]]:
    """A tensor's values in row-major order, widened (float64: rounded) to float32, at most a megabyte of values at a time."""
    stored = np.dtype(_DTYPES[weight.dtype])
    with path.open("rb") as file:
        steps = _steps(path, file, weight)
        file.seek(weight.offset)
        for start in range(0, weight.size, _CHUNK):
            count = min(_CHUNK, weight.size - start)
            values = np.fromfile(file, dtype=stored, count=count)
            if len(values) != count:
                raise _damaged(path, f"{weight.name!r} ends early; was the file changed while it was read?")
            if weight.dtype == _BF16:  # the upper half of a float32
                yield (values.astype("<u4") << np.uint32(16)).view("<f4")
            elif steps is not None:
                rows = np.arange(start, start + count) // (weight.size // len(steps))
                yield values.astype("<f4") * steps[rows]
            else:
                yield values.astype("<f4", copy=False)


def _steps(path: Path, file: IO[bytes], weight: Weight) -> NDArray[np.float32] | None:
    """What a step of each row's whole numbers is worth; None for a weight that is stored as it is."""
    if weight.scale is None:
        return None
    file.seek(weight.scale)
    steps = np.fromfile(file, dtype="<f4", count=weight.shape[0])
    if len(steps) != weight.shape[0] or not np.isfinite(steps).all():
        raise _damaged(path, f"the scale of {weight.name!r} holds values that are not finite")
    return steps


def _scaled(path: Path, found: list[Weight]) -> list[Weight]:
    """The tensors with each scale as part of the weight that it belongs to."""
    scales = {weight.name: weight for weight in found if weight.name.endswith(SCALE)}
    joined: list[Weight] = []
    for weight in found:
        scale = scales.pop(weight.name + SCALE, None) if weight.dtype == _INT8 else None
        if scale is not None and (scale.dtype != _F32 or not weight.shape or scale.shape != weight.shape[:1]):
            raise _damaged(
                path, f"{scale.name!r} is {scale.dtype} {scale.shape}; {weight.name!r} {weight.shape} wants one a row"
            )
        joined.append(weight if scale is None else replace(weight, scale=scale.offset))
    taken = {weight.name + SCALE for weight in joined if weight.scale is not None}
    return [weight for weight in joined if weight.name not in taken]


def _parse(path: Path, header: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({str(error)[:80]})") from error
    if not isinstance(parsed, dict):
        raise _damaged(path, "its header is no JSON object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a name comes twice")
    return unique


def _begin(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Sort key: offsets; an empty tensor before the one that begins at the same byte."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(o) is int and o >= 0 for o in offsets):
        raise _damaged(path, f"{name!r} has no data_offsets of two whole numbers")
    return offsets[0], offsets[1]


def _weight(path: Path, name: str, entry: dict[str, Any], data_start: int) -> tuple[Weight, int, int]:
    dtype, shape = entry.get("dtype"), entry.get("shape")
    begin, stop = entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _damaged(path, f"{name!r} has type {dtype!r}; want one of {', '.join(_DTYPES)}")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise _damaged(path, f"{name!r} is no Unicode text")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(d) is int and 0 <= d < 1 << 63 for d in shape):
        raise _damaged(path, f"{name!r} has no shape")
    weight = Weight(name, dtype, tuple(shape), data_start + begin)
    wanted = weight.size * np.dtype(_DTYPES[dtype]).itemsize
    if stop - begin != wanted:
        raise _damaged(path, f"{name!r} holds {stop - begin} bytes, its shape {shape} wants {wanted}")
    return weight, begin, stop


def _damaged(path: Path, why: str) -> UnknownModel:
    return UnknownModel(f"{path} is damaged or no safetensors file: {why}; fetch or save it again")
