"""Measures that counts, labels and retrieval share, and those of labels: pure functions of numpy arrays.

Those of counts are in `evaluate_count`, those of retrieval in `evaluate_retrieval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from binsight.errors import BadSettings

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Figures: TypeAlias = dict[str, Any]  # JSON: numbers, None, lists and objects of them

BINS = 15  # of confidence
ROUNDS = 1000  # of the bootstrap
LEVEL = 0.95  # of its intervals


def confusion_matrix(truth: ArrayLike, answers: ArrayLike, classes: int) -> Integers:
    """How often each true class (row) was answered as each class (column). truth, answers: (n,) in 0 … classes − 1.

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 0], [1, 1]]
    """
    rows, columns = _pairs(truth, answers)
    if len(rows) and (min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= classes):
        raise BadSettings(f"want classes from 0 to {classes - 1}, got some outside")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def top_k(probabilities: ArrayLike, truth: ArrayLike, *, k: int) -> Bools:
    """Whether each true class is among the k most probable ones.

    probabilities: (n, classes). A class that is as probable as the true one and comes before it is ahead of it.
    Raises BadSettings when k is not in 1 … classes.
    """
    rows, classes = np.asarray(probabilities, np.float64), np.asarray(truth, np.int64)
    if not 1 <= k <= rows.shape[1]:
        raise BadSettings(f"want k from 1 to {rows.shape[1]}, got {k}")
    own = rows[np.arange(len(rows)), classes][:, None]  # (n, 1)
    before = np.arange(rows.shape[1]) < classes[:, None]
    ahead: Integers = ((rows > own) | ((rows == own) & before)).sum(axis=1)
    return np.asarray(ahead < k)


def reliability(confidence: ArrayLike, is_right: ArrayLike, *, bins: int = BINS) -> list[Figures]:
    """Of equal bins of confidence that hold answers: its edges, how many, their mean confidence and their accuracy."""
    sure, right = np.asarray(confidence, np.float64), np.asarray(is_right, bool)
    if sure.shape != right.shape or sure.ndim != 1:
        raise BadSettings(f"want a confidence an answer, got {sure.shape} and {right.shape}")
    places = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are open below, closed above
    rows = []
    for place in np.unique(places):
        here = places == place
        row: Figures = {"from": float(place / bins), "to": float((place + 1) / bins), "n": int(here.sum())}
        rows.append(row | {"confidence": float(sure[here].mean()), "accuracy": float(right[here].mean())})
    return rows


def expected_calibration_error(confidence: ArrayLike, is_right: ArrayLike, *, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence, by their size.

    confidence, is_right: (n,), n ≥ 1. Source: ECE of Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    rows = reliability(confidence, is_right, bins=bins)
    if not rows:
        raise BadSettings("want at least one answer to measure calibration on, got none")
    return float(sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / sum(row["n"] for row in rows))


def bootstrap_means(
    values: ArrayLike, *, generator: np.random.Generator, groups: Sequence[str] | None = None, rounds: int = ROUNDS
) -> Floats:
    """Means of columns over samples drawn with replacement. values: (n, m), n ≥ 1. Returns (rounds, m).

    groups: of n rows; rows of one group (sister photos of one bin) are drawn together, since they are not independent.
    Source: Efron and Tibshirani 1993, chapters 6 and 8.
    """
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or not len(rows) or (groups is not None and len(groups) != len(rows)):
        raise BadSettings(f"want values (n, m), n at least 1, and a group a row, got {rows.shape}")
    _, places = np.unique(np.arange(len(rows)) if groups is None else np.asarray(groups), return_inverse=True)
    units = int(places.max()) + 1
    sums = np.stack([np.bincount(places, weights=column, minlength=units) for column in rows.T], axis=1)  # (units, m)
    sizes = np.bincount(places, minlength=units)
    means = np.empty((rounds, rows.shape[1]))
    for number in range(rounds):
        times = np.bincount(generator.integers(units, size=units), minlength=units)  # how often each unit was drawn
        means[number] = times @ sums / (times @ sizes)
    return means


def bounds(samples: Floats, *, level: float = LEVEL) -> list[float]:
    """The middle `level` of samples (rounds,), as [low, high]."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def collapse(truth: ArrayLike, answers: ArrayLike, *, share: float = 0.9, least: int = 20) -> Figures:
    """Whether one answer is given for nearly all pictures although they differ.

    Returns "answer" (the most frequent one), "share" (of the answers), "true_share" (of the truth) and "collapsed": at least
    `share` of at least `least` answers are the same, and the truth has it at least a tenth less often.
    """
    true, given = _pairs(truth, answers)
    if not len(given):
        raise BadSettings("want at least one answer, got none")
    values, times = np.unique(given, return_counts=True)
    answer, found = int(values[times.argmax()]), float(times.max() / len(given))
    true_share = float((true == answer).mean())
    is_collapsed = len(given) >= least and found >= share and found - true_share >= 0.1
    return {"collapsed": is_collapsed, "answer": answer, "share": found, "true_share": true_share}


def label_figures(
    truth: Sequence[str],
    answers: Sequence[Sequence[tuple[str, float]]],
    *,
    generator: np.random.Generator,
    groups: Sequence[str] | None = None,
) -> Figures:
    """What `evaluate labels` says.

    truth: n names. answers: n lists of (name, probability), of all classes of the model or of its likeliest. A true name that
    is in none of them is one that the model does not know: it counts as wrong and is listed under "unknown".
    "constant" is the most frequent true class, always answered: chosen on these very pictures, so it is a hard one to beat.
    Raises BadSettings when there are none, or the two differ in length.
    """
    if not truth or len(truth) != len(answers):
        raise BadSettings(f"want one answer a picture, and at least one, got {len(answers)} for {len(truth)}")
    known = sorted({name for answer in answers for name, _ in answer})
    classes = known + sorted(set(truth) - set(known))
    place = {name: index for index, name in enumerate(classes)}
    probabilities = np.zeros((len(truth), len(classes)))
    for row, answer in enumerate(answers):
        for name, probability in answer:
            probabilities[row, place[name]] = probability
    true = np.array([place[name] for name in truth])
    given = probabilities[:, : len(known)].argmax(axis=1)
    is_known = true < len(known)
    right = given == true
    among_five = top_k(probabilities, true, k=min(5, len(known))) & is_known
    means = bootstrap_means(np.stack([right, among_five], axis=1), generator=generator, groups=groups)
    frequent = int(np.bincount(true).argmax())
    matrix = confusion_matrix(true, given, len(classes))
    collapsed = collapse(true, given)
    return {
        "n": len(truth),
        "top_1": float(right.mean()),
        "top_5": float(among_five.mean()),
        "bootstrap": {"level": LEVEL, "top_1": bounds(means[:, 0]), "top_5": bounds(means[:, 1])},
        "constant": {"label": classes[frequent], "top_1": float((true == frequent).mean())},
        "ece": expected_calibration_error(probabilities.max(axis=1), right),
        "reliability": reliability(probabilities.max(axis=1), right),
        "collapse": collapsed | {"answer": classes[collapsed["answer"]]},
        "unknown": sorted(set(truth) - set(known)),
        "classes": classes,
        "per_class": {
            name: {"n": int((true == index).sum()), "top_1": mean_of(right[true == index])}
            for index, name in enumerate(classes)
        },
        "confusion": matrix.tolist(),
    }


def mean_of(values: NDArray[Any]) -> float | None:
    """The mean, or None where there is nothing."""
    return float(values.mean()) if values.size else None


def _pairs(truth: ArrayLike, answers: ArrayLike) -> tuple[Integers, Integers]:
    true, given = np.asarray(truth, np.int64), np.asarray(answers, np.int64)
    if true.ndim != 1 or true.shape != given.shape:
        raise BadSettings(f"want one answer a picture, got {given.shape} for {true.shape}")
    return true, given
