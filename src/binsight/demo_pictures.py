"""Pictures that the demonstration's network learns from: bins and parts of the made-up warehouse, drawn in memory.

Every picture has a generator of its own, so what is drawn depends on the arguments alone and not on how many processes drew.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from binsight.data.parts import Part, catalogue
from binsight.data.warehouse import Bin, bin_photo, catalogue_photo, fill_bins
from binsight.errors import CannotBeDone

Progress: TypeAlias = Callable[[int, int], None]  # bins done, of how many


@dataclass(frozen=True, slots=True)
class BinJob:
    """Which pictures of bins to draw.

    catalogue_seed: of the parts that lie in them. seed: of the bins, of how things lie, and of the pictures. bins: how many.
    views: pictures of each bin as it is. taken: pictures of each bin after one item was taken (as many as it has items, at
    most): another count for a third of the work, because where things lie is found once. size_px: side of a picture.
    """

    catalogue_seed: int
    seed: int
    bins: int
    views: int
    taken: int
    size_px: int


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """n pictures. pixels: uint8 (n, side, side, 3). counts: int64 (n,), items in each. things: int64 (n,), rising from 0;
    pictures of one bin, or of one part, have the same number.
    """  # fmt: skip

    pixels: NDArray[np.uint8]
    counts: NDArray[np.int64]
    things: NDArray[np.int64]


_ARRAYS = ("pixels", "counts", "things")
_LEAST_SHARE = 32  # bins: a process makes up the looks of the parts once more, which takes as long as 20 to 30 bins


def draw_bins(job: BinJob, *, workers: int | None = None, progress: Progress = lambda _done, _total: None) -> Drawn:
    """The pictures of a job, bin after bin. workers: processes that draw; by default one a CPU, or as many as have work enough
    to make up for their start. progress: of the bins.

    Raises CannotBeDone when one of them ends before its work is done.
    """
    wanted = min(workers or min(len(os.sched_getaffinity(0)), job.bins // _LEAST_SHARE), job.bins)
    if wanted <= 1:
        return _share(job, 0, 1, lambda done: progress(done, job.bins))
    every = _joined(_by_processes(job, wanted, progress))
    order = np.argsort(every.things, kind="stable")
    return Drawn(every.pixels[order], every.counts[order], every.things[order])


def draw_parts(parts: Sequence[Part], *, seed: int, views: int, size_px: int) -> Drawn:
    """Catalogue photos, part after part, each `views` times."""
    shown = [
        catalogue_photo(part, np.random.default_rng([seed, 7, place, view]), size_px=size_px)
        for place, part in enumerate(parts)
        for view in range(views)
    ]
    pixels = np.stack([np.asarray(image) for image in shown])
    return Drawn(pixels, np.ones(len(pixels), np.int64), np.repeat(np.arange(len(parts)), views))


def _share(job: BinJob, place: int, of: int, drew: Callable[[int], None]) -> Drawn:
    """The pictures of every `of`-th bin from `place` on. drew: is told after each bin how many they are."""
    bins = fill_bins(catalogue(job.catalogue_seed), job.bins, seed=job.seed)
    shares = []
    for number in range(place, job.bins, of):
        shares.append(_views(job, number, bins[number]))
        drew(len(shares))
    return _joined(shares)


def _joined(every: Sequence[Drawn]) -> Drawn:
    pixels, counts, things = ([getattr(one, name) for one in every] for name in _ARRAYS)
    return Drawn(np.concatenate(pixels), np.concatenate(counts), np.concatenate(things))


def _views(job: BinJob, number: int, bin_: Bin) -> Drawn:
    pixels, counts = [], []
    for view in range(job.views):
        rng = np.random.default_rng([job.seed, 8, number, view])
        pixels.append(np.asarray(bin_photo(bin_, rng, size_px=job.size_px).image))
        counts.append(bin_.count)
    for view in range(min(job.taken, bin_.count)):
        rng = np.random.default_rng([job.seed, 9, number, view])
        left_out = int(rng.integers(bin_.count))
        pixels.append(np.asarray(bin_photo(bin_, rng, size_px=job.size_px, without=left_out).image))
        counts.append(bin_.count - 1)
    return Drawn(np.stack(pixels), np.array(counts, np.int64), np.full(len(counts), number, np.int64))


# ---- many processes: finding where things lie holds the interpreter's lock, so threads would wait for each other


def _by_processes(job: BinJob, workers: int, progress: Progress) -> list[Drawn]:
    """The workers' shares. Each is a program of its own, as multiprocessing would run a caller's unguarded script again; into
    one pipe they all write a byte for each bin, and it ends with the last of them.
    """
    told, tell = os.pipe()
    with os.fdopen(told, "rb", buffering=0) as bins_drawn:
        program = (sys.executable, "-P", "-m", __name__, json.dumps(asdict(job)))
        started = []
        try:
            for place in range(workers):
                command = [*program, str(place), str(workers), str(tell)]
                started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=[tell]))
        finally:
            os.close(tell)
        return _answers(started, bins_drawn, lambda done: progress(done, job.bins))


def _answers(started: Sequence[subprocess.Popen[bytes]], bins_drawn: IO[bytes], drew: Callable[[int], None]) -> list[Drawn]:
    try:
        done = 0
        while came := bins_drawn.read(4096):
            done += len(came)
            drew(done)
        return [_received(process) for process in started]
    finally:
        for process in started:
            with process:
                process.kill()  # it has sent its share, or something went wrong


def _received(process: subprocess.Popen[bytes]) -> Drawn:
    answer, _ = process.communicate()
    if process.returncode:
        raise CannotBeDone(f"a process that draws pictures ended with {process.returncode}; is there enough memory?")
    with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
        return Drawn(*(arrays[name] for name in _ARRAYS))


def _main(job: str, place: str, of: str, tell: str) -> None:
    """Draw one share and write it to stdout; to the file descriptor `tell` a byte for each bin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; whoever started this ends it
    with os.fdopen(int(tell), "wb", buffering=0) as bins_drawn:

        def drew(_: int) -> None:
            bins_drawn.write(b".")

        share = _share(BinJob(**json.loads(job)), int(place), int(of), drew)
    answer = io.BytesIO()
    np.savez(answer, pixels=share.pixels, counts=share.counts, things=share.things)
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    _main(*sys.argv[1:])
