"""How good counts are: pure functions of the true counts and the model's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from binsight.errors import BadSettings
from binsight.evaluate import (
    LEVEL,
    Bools,
    Figures,
    Floats,
    Integers,
    bootstrap_means,
    bounds,
    collapse,
    confusion_matrix,
    expected_calibration_error,
    mean_of,
    reliability,
)
from binsight.records import Count

UP_TO = 5  # the published results are on bins of 0 to 5 items


@dataclass(frozen=True, slots=True, eq=False)
class Ranged:
    """Answers as they are when it is known that a bin holds 0 … up_to items.

    values: (n,) the most likely count. means: (n,) of the distribution. probabilities: (n, up_to + 1), each row adds up to 1.
    """

    values: Integers
    means: Floats
    probabilities: Floats


def ranged(counts: Sequence[Count], up_to: int) -> Ranged:
    """The counts' probabilities of 0 … up_to, renormalised; a model that tells fewer counts apart gives 0 to the others.

    Where all of them are 0 (the model is certain of more), the answer is up_to, the nearest.
    """
    probabilities = np.zeros((len(counts), up_to + 1))
    for row, count in enumerate(counts):
        kept = count.probabilities[: up_to + 1]
        probabilities[row, : len(kept)] = kept
    sums = probabilities.sum(axis=1, keepdims=True)
    nearest = np.eye(up_to + 1)[[-1]]  # (1, up_to + 1)
    shares = np.where(sums > 0, probabilities / np.where(sums > 0, sums, 1.0), nearest)
    return Ranged(shares.argmax(axis=1), shares @ np.arange(up_to + 1), shares)


def count_figures(
    true_counts: Sequence[int],
    counts: Sequence[Count],
    *,
    generator: np.random.Generator,
    groups: Sequence[str] | None = None,
    up_to: int = UP_TO,
) -> Figures:
    """What `evaluate count` says.

    The figures on top are those of the bins with 0 … up_to items, answered as if that were known (`ranged`); their intervals
    are those that the model gave, and "width_in_range" is the width of what of them lies in 0 … up_to. "all" holds what can be
    said of all bins, those with more included.
    groups: a product group a picture, for the bootstrap. Raises BadSettings when no bin has 0 … up_to items.
    """
    truth = np.asarray(true_counts, np.int64)
    if truth.ndim != 1 or len(truth) != len(counts) or (len(truth) and truth.min() < 0):
        raise BadSettings(f"want one answer a picture and counts of at least 0, got {len(counts)} for {truth.shape}")
    inside = np.flatnonzero(truth <= up_to).tolist()
    if not inside:
        raise BadSettings(f"want pictures with 0 to {up_to} items, got none among {len(truth)}; take a larger --up-to")
    chosen = [counts[index] for index in inside]
    true, answers = truth[inside], ranged(chosen, up_to)
    right, off = answers.values == true, np.abs(answers.values - true)
    squares, squares_of_mean = off.astype(np.float64) ** 2, (answers.means - true) ** 2
    columns = np.stack([right, squares, squares_of_mean, off, off <= 1], axis=1).astype(np.float64)
    chosen_groups = None if groups is None else [groups[index] for index in inside]
    samples = bootstrap_means(columns, generator=generator, groups=chosen_groups)
    samples[:, 1:3] **= 0.5
    names = ("accuracy", "rmse", "rmse_mean", "mae", "within_1")
    figures = columns.mean(axis=0)
    figures[1:3] **= 0.5
    confidence = answers.probabilities[np.arange(len(true)), answers.values]
    found: Figures = {"n": len(true), "up_to": up_to} | dict(zip(names, figures.tolist(), strict=True))
    return found | {
        "constant": constant_figures(true),
        "bootstrap": {"level": LEVEL} | {name: bounds(samples[:, place]) for place, name in enumerate(names)},
        **interval_figures(true, chosen),
        "width_in_range": mean_of(np.array([min(one.high, up_to) - min(one.low, up_to) for one in chosen], np.float64)),
        "ece": expected_calibration_error(confidence, right),
        "reliability": reliability(confidence, right),
        "collapse": collapse(true, answers.values),
        "per_class": {str(count): _of_class(true == count, answers, count) for count in range(up_to + 1)},
        "confusion": confusion_matrix(true, answers.values, up_to + 1).tolist(),
        "all": _all_figures(truth, counts),
    }


def constant_figures(true_counts: Integers) -> Figures:
    """The best that one answer for all pictures reaches, chosen on these very pictures: what any model must beat.

    "count" is the one with the best "accuracy"; "rmse_count" the whole number with the least "rmse"; "mean" the number with
    the least "rmse_mean"; "mae_count" and "within_1_count" likewise, each with its figure.
    """
    if not len(true_counts):
        raise BadSettings("want at least one true count, got none")
    candidates = np.arange(true_counts.max() + 1)
    off = np.abs(candidates[:, None] - true_counts[None])  # (candidates, n)
    accuracy, within = (off == 0).mean(axis=1), (off <= 1).mean(axis=1)
    rmse, mae = np.sqrt((off.astype(np.float64) ** 2).mean(axis=1)), off.mean(axis=1)
    return {
        "count": int(accuracy.argmax()),
        "accuracy": float(accuracy.max()),
        "rmse_count": int(rmse.argmin()),
        "rmse": float(rmse.min()),
        "mean": float(true_counts.mean()),
        "rmse_mean": float(true_counts.std()),
        "mae_count": int(mae.argmin()),
        "mae": float(mae.min()),
        "within_1_count": int(within.argmax()),
        "within_1": float(within.max()),
    }


def interval_figures(true_counts: Integers, counts: Sequence[Count]) -> Figures:
    """"coverage": the share of true counts in low … high, where high = max_count + 1 holds all larger ones; "width": the mean
    of high − low."""  # fmt: skip
    inside = is_inside(true_counts, counts)
    width = np.array([count.high - count.low for count in counts], np.float64)
    return {"coverage": mean_of(inside), "width": mean_of(width)}


def is_inside(true_counts: Integers, counts: Sequence[Count]) -> Bools:
    """Whether each true count is in its interval."""
    pairs = zip(true_counts.tolist(), counts, strict=True)
    return np.array([count.low <= min(true, len(count.probabilities)) <= count.high for true, count in pairs], bool)


def _of_class(here: Bools, answers: Ranged, count: int) -> Figures:
    """One column of the published baseline's table."""
    values, means = answers.values[here], answers.means[here]
    square, square_of_mean = mean_of((values - count) ** 2.0), mean_of((means - count) ** 2)
    return {
        "n": int(here.sum()),
        "accuracy": mean_of(values == count),
        "rmse": None if square is None else square**0.5,
        "rmse_mean": None if square_of_mean is None else square_of_mean**0.5,
    }


def _all_figures(truth: Integers, counts: Sequence[Count]) -> Figures:
    """Of all bins, with the model's own range: every count above max_count is the one outcome "more"."""
    beyond = np.array([true >= len(count.probabilities) for true, count in zip(truth.tolist(), counts, strict=True)], bool)
    rows = [(*count.probabilities, count.more) for count in counts]
    likeliest = np.array([int(np.argmax(row)) for row in rows])
    outcome = np.array([min(true, len(row) - 1) for true, row in zip(truth.tolist(), rows, strict=True)])
    chances = np.array([row[true] for row, true in zip(rows, outcome.tolist(), strict=True)])
    by_class = {
        str(count): {"n": int((outcome == count).sum())}
        | interval_figures(truth[outcome == count], [counts[index] for index in np.flatnonzero(outcome == count).tolist()])
        for count in np.unique(outcome).tolist()
    }
    return {
        "n": len(truth),
        "max_count": len(counts[0].probabilities) - 1,
        "beyond_max_count": int(beyond.sum()),
        "accuracy": float((likeliest == outcome).mean()),
        "log_loss": float(-np.log(np.maximum(chances, 1e-12)).mean()),
        **interval_figures(truth, counts),
        "per_class": by_class,
    }
