"""A safetensors file read with numpy alone, its header trusted in nothing.

The format (github.com/huggingface/safetensors, "Format"): 8 bytes little-endian header length N, N bytes of JSON that
maps each name to `dtype`, `shape` and `data_offsets` [begin, end), then the data. Read here rather than by
`safetensors.numpy`, which knows no bfloat16 and holds a whole file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from binsight.errors import UnknownModel

HEADER_LIMIT = 8 << 20  # bytes; a 300-layer network needs 30 KB. Parsed JSON takes some ten times its size.
_CHUNK = 1 << 20  # values widened at a time: 4 MB
_BF16 = "BF16"
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", _BF16: "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "<u1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight:
    """Where one tensor lies in a file: its name, type, shape, and its first byte counted from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def list_weights(path: Path) -> list[Weight]:
    """The tensors of a safetensors file, by name in code point order.

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
    return sorted(weights, key=lambda weight: weight.name)


def float32_chunks(path: Path, weight: Weight) -> Iterator[NDArray[np.float32]]:
    """A tensor's values in row-major order, widened (float64: rounded) to float32, at most a megabyte of values at a time."""
    stored = np.dtype(_DTYPES[weight.dtype])
    with path.open("rb") as file:
        file.seek(weight.offset)
        for start in range(0, weight.size, _CHUNK):
            count = min(_CHUNK, weight.size - start)
            values = np.fromfile(file, dtype=stored, count=count)
            if len(values) != count:
                raise _damaged(path, f"{weight.name!r} ends early; was the file changed while it was read?")
            if weight.dtype == _BF16:  # the upper half of a float32
                yield (values.astype("<u4") << np.uint32(16)).view("<f4")
            else:
                yield values.astype("<f4", copy=False)


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
