"""What tests of a search share: a few bins with a split, settings that make a trial take a moment, a worker's program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from binsight.data.labelled import open_labelled
from binsight.data.splits import make_split, write_split
from binsight.train import tune_study
from tests import bins
from tests.model_folders import make_model_folder

PROGRAM = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
SPACE = 'lr = {type = "float", low = 0.001, high = 0.1, log = true}\ndropout = {type = "float", low = 0.0, high = 0.5}\n'


def write_data(root: Path) -> None:
    """30 bins in root/bins, their split, a space and a small backbone with weights."""
    folder = bins.write(root / "bins", bins.bins({f"{n:05}": {f"A{n}": n % 6} for n in range(30)}))
    write_split(make_split(open_labelled(str(folder))), root / "split.csv")
    make_model_folder(root / "backbone", size=32, architecture="test_resnet")
    (root / "space.toml").write_text(SPACE, encoding="utf-8")


def quick(root: Path, **changed: Any) -> dict[str, Any]:
    """Settings of a trial of one epoch over a frozen backbone's features."""
    return {
        "data": str(root / "bins"), "split": root / "split.csv", "out": root / "out",
        "backbone": f"local-dir:{root / 'backbone'}", "freeze": "backbone", "size": 32,
        "batch_size": 6, "epochs": 1, "embedding": 4, "threads": 1, "precision": "fp32",
    } | changed  # fmt: skip


def arguments(root: Path, *more: str, storage: str = "", **changed: Any) -> list[str]:
    """`quick` as a command line."""
    values = quick(root, **changed)
    options = [f"--{name}={values.pop(name)}" for name in ("data", "split", "out", "backbone")]
    options += [f"--set={name}={value}" for name, value in values.items()]
    where = storage or str(root / "study.log")
    return ["tune", *options, "--study=s", f"--storage={where}", f"--space={root / 'space.toml'}", *more]


def start(root: Path, given: Sequence[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"BINSIGHT_CACHE": str(root / "cache")}
    command = [sys.executable, "-c", PROGRAM, *given]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def trials_of(storage: str) -> list[FrozenTrial]:
    return optuna.load_study(storage=tune_study.open_storage(storage, create=False), study_name="s").get_trials()


def wait_for(condition: Any, job: subprocess.Popen[str], *, most_s: float = 120) -> None:
    """Until the condition holds, or fail with what the job said."""
    until = time.monotonic() + most_s
    while not condition():
        if job.poll() is not None or time.monotonic() > until:
            job.kill()
            raise AssertionError(job.communicate()[1])
        time.sleep(0.02)
