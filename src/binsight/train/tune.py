"""Hyperparameter search: trials of one study, run by any number of processes and machines."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from binsight.data.files import write_atomically
from binsight.data.splits import TRAIN, read_split
from binsight.errors import BadSettings, BinsightError, CannotBeDone, MissingExtra, WrongUse
from binsight.train import tune_study
from binsight.train.config import TrainConfig
from binsight.train.tune_space import BUILT_IN, LOCAL, Space, check_space, fitted, read_space, without
from binsight.train.tune_study import Shared

try:
    import optuna
    from optuna.trial import TrialState
except ImportError as error:
    raise MissingExtra("lightning and optuna", extra="train") from error
if find_spec("lightning") is None:
    raise MissingExtra("lightning and optuna", extra="train")

Say: TypeAlias = Callable[[str], None]
Pruner: TypeAlias = Literal["median", "halving", "none"]
PRUNERS: tuple[Pruner, ...] = ("median", "halving", "none")
UNPRUNED_TRIALS, UNPRUNED_EPOCHS = 5, 2  # first trials of a study, and first epochs of a trial, that are always run
BEST = "best.json"
_TRIALS, _STUDY = "trials", "study.json"


@dataclass(frozen=True, slots=True)
class TuneJob:
    """What a search is told.

    base: settings that all trials share. space: what is searched. trials: finished trials that the study is to have in
    all, over all its processes. ends_at: time.time() from which no trial begins. seed: of the sampler.
    """

    study: str
    storage: str
    out: Path
    base: TrainConfig
    space: Space
    trials: int
    pruner: Pruner = "median"
    workers: int = 1
    ends_at: float = math.inf
    seed: int = 0

    def about(self) -> dict[str, Any]:
        """What has to be the same in all processes for their trials to compare."""
        fixed = {name: value for name, value in self.base.to_json().items() if name not in LOCAL and name not in self.space}
        space = {name: parameter.to_json() for name, parameter in self.space.items()}
        return {"space": space, "base": fixed, "split": hashlib.sha256(self.base.split.read_bytes()).hexdigest()}


def make_job(
    values: Mapping[str, Any],
    *,
    study: str,
    storage: str,
    space: str = "default",
    trials: int = 20,
    pruner: str = "median",
    workers: int = 1,
    timeout_s: float = 0.0,
) -> TuneJob:
    """A search that is checked as a whole before its first trial.

    values: settings of TrainConfig, with data, split and out (the search's folder); what is given leaves the space.
    space: default, wide or a file. Raises BadSettings, BadSource.
    """
    if pruner not in PRUNERS:
        raise BadSettings(f"--pruner: want {', '.join(PRUNERS)}, got {pruner!r}")
    if trials < 1 or workers < 1 or timeout_s < 0:
        raise BadSettings(f"want at least 1 trial, 1 worker and no time below 0, got {trials}, {workers} and {timeout_s:g}")
    if not study.strip():
        raise BadSettings("--study: want a name")
    base = TrainConfig.checked(values)
    if base.devices * base.nodes > 1:
        raise BadSettings("a search gives each trial one device: start more workers, here (--workers) or on other machines")
    if base.out.exists() and not base.out.is_dir():
        raise BadSettings(f"--out: {base.out} is no folder")
    found = read_space(space)
    if space in BUILT_IN:
        found = without(found, values)
    elif given := sorted(set(found) & set(values)):
        raise BadSettings(f"{given[0]}: both searched for in {space} and fixed; take it out of one of them")
    check_space(found, base)
    pictures = len(read_split(base.split, allow_leak=True).of(TRAIN))
    found = fitted(found, base, pictures=pictures, may_cut=space in BUILT_IN)
    ends_at = time.time() + timeout_s if timeout_s else math.inf
    return TuneJob(study, storage, base.out, base, found, trials, pruner, workers, ends_at, base.seed)


def tune(job: TuneJob, *, say: Say = lambda _: None) -> Shared:
    """Run the study's missing trials with the job's workers, and give the study.

    A trial whose loss diverges or that runs out of memory fails, and the others go on. Raises BadSettings for a study that
    was begun otherwise; CannotBeDone when the storage or the disk cannot be used, or a worker was killed.
    """
    with tune_study.storage_errors(job.storage):
        _take_folder(job)
        shared = tune_study.join(job.storage, job.study, job.about(), _pruner(job.pruner))
        done = sum(map(tune_study.is_finished, shared.trials()))
        say(f"study {job.study}: {done} of {job.trials} trials are finished; searching {', '.join(job.space)}")
        if job.workers == 1:
            from binsight.train.tune_trials import work  # torch and lightning, which who only looks after workers does not need

            work(job, shared, say)
        else:
            _work_together(job, say)
        tidy(job.out, shared)
        return shared


def config_from_study(storage: str, study: str | None, base_values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for TrainConfig: those of the study's best trial, under base_values, which win.

    storage: journal file, database URL, or a search's best.json. study: None where there is only one.
    Raises BadSettings when there is no such study, or none of its trials is complete.
    """
    file = Path(storage)
    if not tune_study.is_database(storage) and file.suffix == ".json" and file.is_file():
        found = _best_file(file)
    else:
        with tune_study.storage_errors(storage):
            found = best_config(tune_study.load(storage, study))
    if unknown := sorted(set(found) - set(TrainConfig.model_fields)):
        raise BadSettings(f"{storage}: {unknown[0]!r} is no setting of this version of binsight")
    return found | dict(base_values)


def study_address(text: str) -> tuple[str, str | None]:
    """FILE_OR_URL[#STUDY] → storage and study.

    >>> study_address("postgresql://db/tuning#lr")
    ('postgresql://db/tuning', 'lr')
    """
    storage, mark, name = text.rpartition("#")
    if not mark or Path(text).exists():
        return text, None
    return storage, name or None


def best_config(shared: Shared) -> dict[str, Any]:
    """Settings of the best complete trial, less those of its place. Raises BadSettings when there is none."""
    if not shared.trials(TrialState.COMPLETE):
        raise BadSettings(f"no trial of the study {shared.study.study_name!r} is complete: there is no best one yet")
    return dict(tune_study.about(shared)["base"]) | dict(shared.study.best_trial.params)


def _best_file(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["config"]
        if not isinstance(found, dict):
            raise TypeError(f"want 'config' to be an object, got {type(found).__name__}")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSettings(f"{file} is no {BEST} of `binsight tune`: {error!r}") from error


# ---- the folder


def _take_folder(job: TuneJob) -> None:
    """A folder is of one study, whose trials it may clear away."""
    mark = job.out / _STUDY
    try:
        (job.out / _TRIALS).mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            write_atomically(mark, json.dumps({"study": job.study}).encode() + b"\n")  # another process may read it meanwhile
        name = json.loads(mark.read_text(encoding="utf-8")).get("study")
    except OSError as error:
        raise CannotBeDone(f"cannot write to {job.out}: {error.strerror or error}; give another --out") from error
    except (ValueError, AttributeError) as error:
        raise BadSettings(f"{mark} is damaged; give another --out") from error
    if name != job.study:
        raise BadSettings(f"{job.out} is of the study {name!r}; give {job.study!r} an --out of its own")


def place_of(out: Path, number: int) -> Path:
    return out / _TRIALS / f"{number:04}"


def model_of(out: Path, number: int) -> Path | None:
    """The model of a trial where it is still here: only the best one's is kept."""
    folder = place_of(out, number)
    return folder if (folder / "config.json").is_file() else None


def tidy(out: Path, shared: Shared) -> None:
    """Clear away what finished trials left here, but the best one's model; checkpoints weigh gigabytes."""
    complete = shared.trials(TrialState.COMPLETE)
    best = shared.study.best_trial.number if complete else None
    for trial in shared.trials():
        if trial.state.is_finished():
            clear(out, trial.number, keep_model=trial.number == best)


def clear(out: Path, number: int, *, keep_model: bool = False) -> None:
    folder = place_of(out, number)
    shutil.rmtree(folder.with_name(f"{folder.name}.run"), ignore_errors=True)
    if not keep_model:
        shutil.rmtree(folder, ignore_errors=True)


# ---- processes


def _pruner(name: Pruner) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_EPOCHS)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=UNPRUNED_EPOCHS, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _work_together(job: TuneJob, say: Say) -> None:
    """Run the job's workers as processes of their own. Raises what the first of them raised."""
    threads = job.base.threads or max(1, len(os.sched_getaffinity(0)) // job.workers)
    job = replace(job, base=job.base.model_copy(update={"threads": threads}))
    context = multiprocessing.get_context("spawn")
    started: list[tuple[Any, Connection]] = []  # SpawnProcess
    readers: list[threading.Thread] = []
    errors: list[tuple[int, str]] = []
    try:
        for place in range(job.workers):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_worker, args=(job, place, theirs), name=f"binsight-tune-{place}")
            process.start()
            theirs.close()
            started.append((process, ours))
            readers.append(threading.Thread(target=_listen, args=(ours, say, errors), daemon=True))
            readers[-1].start()
        for process, _ in started:
            process.join()
    except BaseException:
        for process, _ in started:
            process.join(15)  # on Ctrl-C they have had the signal too, and give their trials back
            process.terminate()
            process.join()
        raise
    for reader in readers:
        reader.join(5)
    if errors:
        code, message = errors[0]
        raise BadSettings(message) if code == WrongUse.exit_code else CannotBeDone(message)
    if ended := [process for process, _ in started if process.exitcode]:
        raise CannotBeDone(
            f"{len(ended)} of {job.workers} workers were ended from outside (the first by {_ending(ended[0].exitcode)}); "
            "their trials are run again when the same command is"
        )


def _ending(code: int) -> str:
    return f"signal {-code}" + (": was memory short?" if code == -9 else "") if code < 0 else f"exit code {code}"


def _listen(pipe: Connection, say: Say, errors: list[tuple[int, str]]) -> None:
    with suppress(EOFError, OSError):
        while True:
            kind, content = pipe.recv()
            if kind == "say":
                say(content)
            else:
                errors.append(content)


def _worker(job: TuneJob, place: int, pipe: Connection) -> None:
    """A worker process. It ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _take_gpu(place)

    def say(message: str) -> None:
        pipe.send(("say", message))

    try:
        from binsight.train.tune_trials import work

        with tune_study.storage_errors(job.storage):
            work(job, tune_study.join(job.storage, job.study, job.about(), _pruner(job.pruner)), say)
    except BinsightError as error:
        pipe.send(("error", (error.exit_code, str(error))))
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # its trial's process is gone, and so the trial is run again


def _take_gpu(place: int) -> None:
    """Spread workers over the machine's GPUs, before CUDA looks at them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = [one for one in listed.split(",") if one] if listed is not None else [str(one) for one in range(_gpus())]
    if len(ids) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = ids[place % len(ids)]


def _gpus() -> int:
    """How many GPUs there are, without starting CUDA in this process."""
    return len([one for one in Path("/dev").glob("nvidia[0-9]*") if one.name[6:].isdigit()])
