"""The trials of a search: what one process runs, one after another."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, final

import lightning
import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from binsight.errors import TrainingDiverged, WrongUse
from binsight.train import tune_study
from binsight.train.config import TrainConfig
from binsight.train.module import BinModule
from binsight.train.run import Say, TrainReport, train
from binsight.train.tune import TuneJob, clear, place_of, tidy
from binsight.train.tune_study import Shared

_FIGURES = ("score", "accuracy", "rmse", "rmse_mean", "label_accuracy", "recall@1", "recall@10", "accuracy_constant")


@final
class Pruning(lightning.Callback):
    """Tells the study the score of every epoch, and ends a trial that is worse than others were by then."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self.figures: Mapping[str, Any] = {}
        self.epochs = 0

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not isinstance(pl_module, BinModule) or not pl_module.history:
            return
        self.figures, self.epochs = pl_module.history[-1], len(pl_module.history)
        score = self.figures["score"]
        if not math.isfinite(score):
            raise TrainingDiverged(f"the score is {score} in epoch {trainer.current_epoch}")
        self._trial.report(score, trainer.current_epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"epoch {trainer.current_epoch + 1}")


def work(job: TuneJob, shared: Shared, say: Say) -> None:
    """Run trials until none is left to take."""
    while time.time() < job.ends_at:
        trial = tune_study.claim(shared, job.trials, (job.seed,))
        if trial is None:
            break
        with tune_study.heartbeat(shared, trial):
            _run(job, shared, trial, say)
        tidy(job.out, shared)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _run(job: TuneJob, shared: Shared, trial: optuna.Trial, say: Say) -> None:
    """One trial, from its parameters to its end in the storage."""
    number, started = trial.number, time.perf_counter()
    pruning = Pruning(trial)

    def told(message: str) -> None:
        say(f"trial {number}  {message}")

    try:
        params = {name: parameter.suggest(name, trial) for name, parameter in job.space.items()}
        told(
            ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
            )
        )
        clear(job.out, number)  # of another study of this name
        config = TrainConfig.checked({**job.base.model_dump(), **params, "out": place_of(job.out, number)})
        with _failing_on_memory():
            report = train(config, say=told, callbacks=(pruning,))
    except optuna.TrialPruned as pruned:
        with _unless_lost(told):
            _describe(trial, pruning.figures, pruning.epochs, started)
            shared.study.tell(trial, state=TrialState.PRUNED)
            told(f"pruned in {pruned}")
    except (_Failed, TrainingDiverged) as error:
        _fail(shared, trial, str(error), started, told)
    except WrongUse as error:
        if not any(one.state in (TrialState.COMPLETE, TrialState.PRUNED) for one in shared.trials()):
            tune_study.give_back(shared, trial)  # the call itself is wrong: so would all others be
            raise
        _fail(shared, trial, str(error), started, told)
    except UpdateFinishedTrialError:
        told("was taken for dead by another process, which runs it again")
    except BaseException:
        with suppress(Exception):  # what stopped the trial is what is told
            tune_study.give_back(shared, trial)
        raise
    else:
        with _unless_lost(told):
            _complete(shared, trial, report, started, told)


def _complete(shared: Shared, trial: optuna.Trial, report: TrainReport, started: float, told: Say) -> None:
    score = float(report.figures["score"])
    if not math.isfinite(score):
        _fail(shared, trial, f"the score is {score}", started, told)
        return
    _describe(trial, report.figures, len(report.history), started)
    shared.study.tell(trial, score)
    best = shared.study.best_trial
    told(f"score {score:.4f} (best {best.value:.4f}, trial {best.number})")


def _fail(shared: Shared, trial: optuna.Trial, reason: str, started: float, told: Say) -> None:
    with _unless_lost(told):
        trial.set_user_attr("took_s", round(time.perf_counter() - started, 2))
        tune_study.fail(shared, trial, reason)
        told(f"failed: {reason}")


def _describe(trial: optuna.Trial, figures: Mapping[str, Any], epochs: int, started: float) -> None:
    for name in _FIGURES:
        value = figures.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            trial.set_user_attr(name, float(value))
    trial.set_user_attr("epochs_run", epochs)
    trial.set_user_attr("took_s", round(time.perf_counter() - started, 2))


@contextmanager
def _unless_lost(told: Say) -> Iterator[None]:
    """A trial that others took for dead is theirs: what came of it here is left."""
    try:
        yield
    except UpdateFinishedTrialError:
        told("was taken for dead by another process, which runs it again")


class _Failed(Exception):
    """The trial's parameters do not fit this machine."""


@contextmanager
def _failing_on_memory() -> Iterator[None]:
    """Memory that ran out, on a GPU or here: a matter of the trial's size, and no reason to end the study."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _Failed(f"out of memory: {_first_line(error)}") from error
    except RuntimeError as error:  # torch has no class of its own for the CPU's
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise _Failed(f"out of memory: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
