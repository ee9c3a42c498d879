"""Where a run writes: looked at before it starts, and held by one process while it runs."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from binsight.checkpoint import CONFIG
from binsight.errors import BadSettings, CannotBeDone
from binsight.model_folder import check_place
from binsight.paths import user_path
from binsight.train.config import TrainConfig

LAST, BEST = "last.ckpt", "best.ckpt"
_LOCK = "lock"
# What a resumed run may change, as it changes no weight but by the order of sums.
_MAY_CHANGE = frozenset({
    "out", "device", "devices", "nodes", "workers", "threads", "compile", "profile", "coverage", "licence", "licence_file",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Earlier:
    """What lies behind a run. epochs and seconds: of it; is_over: its patience has ended it."""

    epochs: int = 0
    took_s: float = 0.0
    is_over: bool = False


@contextmanager
def held(config: TrainConfig, *, resume: bool) -> Iterator[Earlier]:
    """The run's folder, while no other process may run into it; freed by the kernel when its owner dies.

    Raises BadSettings for a place that cannot be taken, or a run that cannot go on; CannotBeDone when another process holds
    it, or it cannot be written.
    """
    _check(config, resume)
    folder = config.run_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotBeDone(f"cannot write to {folder}: {error.strerror or error}; give another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise CannotBeDone(f"process {owner} trains into {folder}; wait for it to end, or give another --out") from error
        with suppress(OSError):  # a full disk: held all the same, only its owner goes unnamed
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        _check(config, resume)
        yield earlier(config) if resume else Earlier()
    finally:
        if {one.name for one in folder.iterdir()} <= {_LOCK}:  # nothing came of it
            (folder / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        os.close(descriptor)


def disk_error(folder: Path, error: OSError) -> CannotBeDone:
    """What is told of an error while a run writes."""
    kept = "; what was saved before is kept: make room, then --resume" if (folder / LAST).exists() else ""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = kept or ("; make room" if is_full else "; give another --out")
    return CannotBeDone(f"cannot write to {folder}: {error.strerror or error}{advice}")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Errors of the disk as ours, once: TensorBoard writes in a thread, which would print the same error as a traceback."""
    before = threading.excepthook

    def of_thread(told: threading.ExceptHookArgs) -> None:
        if not isinstance(told.exc_value, OSError):
            before(told)

    threading.excepthook = of_thread
    try:
        yield
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        threading.excepthook = before


def _check(config: TrainConfig, resume: bool) -> None:
    if not config.out.name:
        raise BadSettings(f"--out: want a folder of its own, got {str(config.out)!r}")
    for path in (config.out, config.run_dir):
        user_path(path, error=BadSettings)
    if resume and not (config.run_dir / LAST).exists():
        raise BadSettings(f"nothing to resume: {config.run_dir} holds no {LAST}; start without --resume")
    if not resume and (config.run_dir / LAST).exists():
        raise BadSettings(f"{config.run_dir} holds an earlier run; go on with --resume, or give another --out")
    check_place(config.out)
    if not resume and (config.out / CONFIG).exists():
        raise BadSettings(f"{config.out} holds a model that another run made; give another --out, or take it away")


def earlier(config: TrainConfig) -> Earlier:
    """What lies behind the run that is to go on. Raises BadSettings when it is of other settings, or damaged."""
    file = config.run_dir / LAST
    try:
        saved = torch.load(file, map_location="cpu", weights_only=False)  # a file that we wrote ourselves
        theirs, history, took_s = saved["config"], saved["history"], float(saved["took_s"])
        stopping = [state for name, state in saved["callbacks"].items() if name.startswith("EarlyStopping")]
        is_over = any(state["wait_count"] >= state["patience"] > 0 for state in stopping)
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise BadSettings(f"{file} is no checkpoint of this version, or damaged ({error}); give another --out") from error
    ours = config.to_json()
    if changed := [name for name in ours if name not in _MAY_CHANGE and ours[name] != theirs.get(name)]:
        name = changed[0]
        raise BadSettings(
            f"--resume goes on with the settings of {config.run_dir}: --{name.replace('_', '-')} was {theirs.get(name)!r}, "
            f"got {ours[name]!r}; give another --out to start anew"
        )
    return Earlier(len(history), took_s, is_over)
