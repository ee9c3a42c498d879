"""Pictures decoded once, at the model's size, as one file of pixels that training maps into memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binsight import checkpoint
from binsight.data.labelled import LabelledSet
from binsight.data.source import Refusal
from binsight.errors import BadImage, BadSource, CannotBeDone, StoreDamaged
from binsight.preprocess import Preprocess
from binsight.store.files import crc_of_file

Pixels = NDArray[np.uint8]
_PIXELS, _INDEX = "pixels.npy", "index.json"
_TOGETHER = 64  # pictures that one thread decodes in a row


@dataclass(frozen=True, slots=True, eq=False)
class PixelCache:
    """pixels: uint8 (n, h, w, 3), mapped read-only; uris: of each row; refused: pictures that could not be decoded."""

    pixels: Pixels
    uris: tuple[str, ...]
    refused: tuple[Refusal, ...]
    key: str


def open_pixels(
    labelled: LabelledSet,
    uris: Sequence[str],
    preprocess: Preprocess,
    *,
    root: Path,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PixelCache:
    """The pixels of these pictures, decoded now or taken, if their checksum holds, from an earlier run of the same files, size
    and resampling.

    root: the cache's folder. workers: threads, by default one a core. Raises BadSource when no picture can be decoded,
    CannotBeDone when the cache cannot be written (disk full).
    """
    key = _key(labelled, uris, preprocess)
    folder = root / "pixels" / key
    if not _is_whole(folder):

        def fill(made: Path) -> None:
            _decode(labelled, uris, preprocess, made, workers or len(os.sched_getaffinity(0)), progress)

        try:
            checkpoint.publish(folder, fill, is_good=_is_whole)
        except OSError as error:
            raise CannotBeDone(
                f"cannot keep decoded pictures in {folder}: {error}; free some space or set BINSIGHT_CACHE"
            ) from error
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    pixels = np.load(folder / _PIXELS, mmap_mode="r", allow_pickle=False)
    refused = tuple(Refusal(path, reason) for path, reason in index["refused"])
    if not index["uris"]:
        raise BadSource(f"none of the {len(uris)} pictures of {labelled.root} can be decoded; the first: {refused[0].error}")
    return PixelCache(pixels[: len(index["uris"])], tuple(index["uris"]), refused, key)


def _key(labelled: LabelledSet, uris: Sequence[str], preprocess: Preprocess) -> str:
    shape = {name: value for name, value in preprocess.to_json().items() if name not in ("mean", "std")}
    digest = hashlib.sha256(json.dumps([labelled.root, shape], sort_keys=True).encode())
    for uri in uris:
        path = Path(labelled.root) / uri
        stamp = ""
        if "://" not in labelled.root and path.exists():
            found = path.stat()
            stamp = f"{found.st_size} {found.st_mtime_ns}"
        digest.update(f"{uri}\0{stamp}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _is_whole(folder: Path) -> bool:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return bool(crc_of_file(folder / _PIXELS) == index["crc"])
    except (OSError, ValueError, KeyError, TypeError, StoreDamaged):
        return False


def _decode(
    labelled: LabelledSet,
    uris: Sequence[str],
    preprocess: Preprocess,
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    shape = (len(uris), *preprocess.size, 3)
    kept: list[str] = []
    refused: list[tuple[str, str]] = []
    parts = [uris[at : at + _TOGETHER] for at in range(0, len(uris), _TOGETHER)]

    def decode(part: Sequence[str]) -> list[tuple[str, Pixels | str]]:
        found: list[tuple[str, Pixels | str]] = []
        for uri in part:
            try:
                found.append((uri, preprocess.pixels(labelled.read(uri))))
            except BadImage as error:
                found.append((uri, str(error)))
        return found

    # Written, not mapped: on a full disk a write raises OSError, where a mapped page ends the process (SIGBUS).
    with (
        (folder / _PIXELS).open("wb") as file,
        ThreadPoolExecutor(workers, thread_name_prefix="binsight-decode") as pool,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for found in pool.map(decode, parts):
            for uri, one in found:
                if isinstance(one, str):
                    refused.append((uri, one))
                else:
                    file.write(one.data)
                    kept.append(uri)
            if progress is not None:
                progress(len(kept) + len(refused), len(uris))
        file.write(bytes(math.prod(preprocess.size) * 3 * len(refused)))  # rows of the header's shape that are not used
        file.flush()
        os.fsync(file.fileno())
    index = {"uris": kept, "refused": refused, "crc": crc_of_file(folder / _PIXELS)}
    (folder / _INDEX).write_text(json.dumps(index), encoding="utf-8")
