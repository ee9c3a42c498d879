"""What a search found: trials, the best one's settings, importances; as JSON, CSV and plots."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from binsight.data.files import write_atomically
from binsight.errors import MissingExtra
from binsight.train import tune_study
from binsight.train.tune import BEST, best_config, model_of
from binsight.train.tune_study import Shared

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise MissingExtra("optuna", extra="train") from error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAIN, _OTHER, _SOFT = "#2a4d8f", "#e2b93b", "#5f6873"
_FEW = 4  # complete trials below which importances say nothing
_NOT_FIGURES = frozenset({"worker", "failure", "retried"})
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}


def summary(shared: Shared, storage: str, out: Path) -> dict[str, Any]:
    """The search as one JSON document.

    "trials": how many of each state. "best": number, score, figures, params, config (for TrainConfig) and model of the best
    trial, null where none is complete. "importances": shares of the settings, largest first, null below four complete
    trials or where all scored the same. "rows": every trial that was run.
    """
    rows = [_row(trial) for trial in shared.trials() if trial.state != TrialState.WAITING]
    states = Counter(row["state"] for row in rows)
    return {
        "study": shared.study.study_name,
        "storage": tune_study.told(storage),
        "trials": {name: states.get(name, 0) for name in ("complete", "pruned", "failed", "killed", "running")},
        "best": _best(shared, out),
        "importances": importances(shared),
        "rows": rows,
    }


def importances(shared: Shared) -> dict[str, float] | None:
    """How much of what makes a good score each setting decides; they sum to 1.

    Source: PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255.
    """
    scores = [trial.value for trial in shared.trials(TrialState.COMPLETE)]
    if len(scores) < _FEW or len(set(scores)) < 2:
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(shared.study, evaluator=evaluator)
    return {name: round(float(share), 4) for name, share in sorted(found.items(), key=lambda one: -one[1])}


def write_results(shared: Shared, report: Mapping[str, Any], out: Path) -> list[Path]:
    """best.json, trials.csv, importances.json and plots of history, importances and slices; the files written.

    Raises CannotBeDone when the system refuses a write.
    """
    files = [out / "trials.csv"]
    write_atomically(files[0], _csv(report["rows"]).encode())
    for name, content in ((BEST, report["best"]), ("importances.json", report["importances"])):
        if content is not None:
            files.append(out / name)
            write_atomically(files[-1], (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    complete = shared.trials(TrialState.COMPLETE)
    if complete:
        files.append(_drawn(out / "history.png", lambda: _history(complete, shared.trials(TrialState.PRUNED))))
        files.append(_drawn(out / "slices.png", lambda: _slices(complete)))
    if report["importances"]:
        files.append(_drawn(out / "importances.png", lambda: _importances(report["importances"])))
    return files


def _row(trial: FrozenTrial) -> dict[str, Any]:
    attributes = trial.user_attrs
    state = _STATES.get(trial.state) or ("failed" if tune_study.counts(trial) else "killed")
    worker = attributes.get("worker") or {}
    return {
        "number": trial.number,
        "state": state,
        "score": None if trial.state != TrialState.COMPLETE else trial.value,
        "params": dict(trial.params),
        "figures": {name: value for name, value in attributes.items() if name not in _NOT_FIGURES},
        "error": attributes.get("failure"),
        "retry_of": next(iter(attributes.get("retried", [])), None),
        "host": worker.get("host"),
        "pid": worker.get("pid"),
        "started": trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None,
    }


def _best(shared: Shared, out: Path) -> dict[str, Any] | None:
    if not shared.trials(TrialState.COMPLETE):
        return None
    best = shared.study.best_trial
    row, model = _row(best), model_of(out, best.number)
    found = {"study": shared.study.study_name, "trial": best.number, "score": best.value, "figures": row["figures"]}
    return found | {"params": row["params"], "config": best_config(shared), "model": None if model is None else str(model)}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    params = sorted({name for row in rows for name in row["params"]})
    figures = sorted({name for row in rows for name in row["figures"]} - {"score"})
    plain = ("number", "state", "score", "error", "retry_of", "host", "pid", "started")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *(f"param {name}" for name in params), *figures])
    for row in rows:
        given = [*(row[name] for name in plain), *(row["params"].get(name) for name in params)]
        writer.writerow(["" if value is None else value for value in (*given, *(row["figures"].get(name) for name in figures))])
    return text.getvalue()


# ---- plots


def _drawn(file: Path, draw: Callable[[], Figure]) -> Path:
    data = io.BytesIO()
    draw().savefig(data, dpi=120, format="png")
    write_atomically(file, data.getvalue())
    return file


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", extra="train") from error
    return Figure(figsize=(width, height), layout="constrained")


def _history(complete: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial]) -> Figure:
    """The score of every trial, and the best one's so far."""
    figure = _figure(6.4, 3.8)
    axes = figure.add_subplot()
    numbers, scores = [trial.number for trial in complete], [float(trial.value or 0.0) for trial in complete]
    axes.scatter(numbers, scores, color=_MAIN, s=24, label="complete")
    ended = [trial for trial in pruned if trial.intermediate_values]
    if ended:
        last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in ended]
        axes.scatter([trial.number for trial in ended], last, color=_SOFT, s=24, marker="x", label="pruned, last epoch")
    axes.step(numbers, np.maximum.accumulate(scores), where="post", color=_OTHER, linewidth=2, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("score")
    axes.legend(frameon=False)
    return figure


def _importances(shares: Mapping[str, float]) -> Figure:
    figure = _figure(6.0, 0.35 * len(shares) + 1.2)
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=_MAIN)
    axes.set_xlabel("importance (PED-ANOVA)")
    return figure


def _slices(complete: Sequence[FrozenTrial]) -> Figure:
    """The score over each setting; later trials are darker."""
    names = sorted({name for trial in complete for name in trial.params})
    across = min(4, max(1, len(names)))
    down = max(1, -(-len(names) // across))
    figure = _figure(3.2 * across, 2.8 * down)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(down, across, place)
        shown = [trial for trial in complete if name in trial.params]
        distribution = shown[0].distributions[name]
        values: list[Any] = [trial.params[name] for trial in shown]  # numbers, or names of choices
        if isinstance(distribution, optuna.distributions.CategoricalDistribution):
            ticks = [str(one) for one in distribution.choices]
            values = [ticks.index(str(one)) for one in values]
            axes.set_xticks(range(len(ticks)), ticks, rotation=45 if max(map(len, ticks)) > 4 else 0)
        elif getattr(distribution, "log", False):
            axes.set_xscale("log")
        order = [trial.number for trial in shown]
        axes.scatter(values, [float(trial.value or 0.0) for trial in shown], c=order, cmap="Blues", edgecolors=_SOFT, s=24)
        axes.set_xlabel(name)
        axes.set_ylabel("score")
    return figure


def check_installed() -> None:
    """Raise MissingExtra now, and not after the last trial, when matplotlib is not there."""
    _figure(1, 1)
