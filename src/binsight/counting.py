"""From a count head's logits to counts: probabilities, temperature, and an interval that holds the truth as often as it says.

A head tells C = max_count + 2 outcomes apart: 0 … max_count items, and "more" (the last). numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from binsight.errors import BadSettings, BadVectors
from binsight.records import Count

CountKind: TypeAlias = Literal["softmax", "corn"]
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

KINDS: tuple[CountKind, ...] = get_args(CountKind)
COVERAGE = 0.9  # of the intervals, by default
_COLDEST, _HOTTEST = 0.01, 100.0  # temperatures that a fit may choose
_GOLDEN = (math.sqrt(5) - 1) / 2


def logit_columns(kind: CountKind, max_count: int) -> int:
    """How many logits a head has: max_count + 2 for softmax, one less for CORN (one a threshold).

    >>> logit_columns("softmax", 5), logit_columns("corn", 5)
    (7, 6)
    """
    return max_count + (2 if kind == "softmax" else 1)


def softmax_probabilities(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities of the C outcomes. logits: (n, C). Raises BadVectors when they are not finite or not (n, C)."""
    return np.exp(_log_probabilities(logits, temperature, "softmax"))


def corn_probabilities(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities of the C outcomes from the C − 1 conditional ones of an ordinal head.

    logits: (n, C − 1); column k is the logit of P(y > k | y > k − 1), so P(y > k) is the product of the sigmoids up to k.
    Returns (n, C). Raises BadVectors when they are not finite or not (n, C − 1).
    Source: CORN, Shi, Cao, Raschka 2021, arXiv:2111.08851, section 3.3.
    """
    return np.exp(_log_probabilities(logits, temperature, "corn"))


def outcomes(true_counts: ArrayLike, max_count: int) -> Integers:
    """The outcome of each true count: itself, or max_count + 1 ("more") where it is larger.

    true_counts: (n,) whole numbers ≥ 0. Raises BadSettings for others.
    """
    counts = np.asarray(true_counts)
    if counts.shape == (0,):
        return np.empty(0, np.int64)
    is_numeric = counts.ndim == 1 and np.issubdtype(counts.dtype, np.number) and bool(np.isfinite(counts).all())
    whole = counts.astype(np.int64) if is_numeric else None
    if whole is None or not np.array_equal(whole, counts) or whole.min() < 0:
        raise BadSettings(f"want true counts (n,), whole and at least 0, got {counts.dtype} {counts.shape}")
    return np.minimum(whole, max_count + 1)


def fit_temperature(logits: ArrayLike, outcomes: ArrayLike, kind: CountKind) -> float:
    """The temperature, from 0.01 to 100, whose probabilities fit the true outcomes best (least negative log-likelihood).

    logits: as the head of this kind gives them, on validation data. outcomes: (n,), from `outcomes`. The likelihood is
    convex in 1 / temperature, so a golden-section search finds the one minimum.
    Raises BadSettings when there are no rows or the two differ in length, BadVectors as the probabilities do.
    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    rows, truth = np.asarray(logits), np.asarray(outcomes)
    if truth.ndim != 1 or not len(truth) or len(rows) != len(truth):
        raise BadSettings(f"want one outcome a row of logits, and at least one, got {truth.shape} for {rows.shape}")
    picked = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(_log_probabilities(rows, math.exp(log_temperature), kind)[picked, truth].mean())

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns one head's logits into counts; fixed on validation data and stored with the model.

    kind: what the logits mean. max_count: the largest count that is told apart. temperature: divides the logits.
    coverage: the share of true counts that intervals are to hold. threshold: an interval grows until it holds more than
    this probability (`joining_masses`). Raises BadSettings when one is outside its range.
    """

    kind: CountKind
    max_count: int
    temperature: float = 1.0
    coverage: float = COVERAGE
    threshold: float = COVERAGE

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadSettings(f"want a count head of kind {' or '.join(map(repr, KINDS))}, got {self.kind!r}")
        if type(self.max_count) is not int or not 1 <= self.max_count <= 1000:
            raise BadSettings(f"want max_count from 1 to 1000, got {self.max_count!r}")
        if not _is_number(self.temperature) or not _COLDEST**2 <= self.temperature <= _HOTTEST**2:
            raise BadSettings(f"want a temperature from {_COLDEST**2:g} to {_HOTTEST**2:g}, got {self.temperature!r}")
        if not _is_number(self.coverage) or not 0 < self.coverage < 1:
            raise BadSettings(f"want a coverage between 0 and 1, got {self.coverage!r}")
        if not _is_number(self.threshold) or not 0 <= self.threshold <= 1:
            raise BadSettings(f"want a threshold from 0 to 1, got {self.threshold!r}")

    def to_json(self) -> dict[str, Any]:  # JSON values
        """As it stands in a model's config.json.

        >>> Calibration("softmax", 5).to_json()
        {'kind': 'softmax', 'max_count': 5, 'temperature': 1.0, 'coverage': 0.9, 'threshold': 0.9}
        """
        return asdict(self)

    @classmethod
    def from_json(cls, document: object) -> Self:
        """The calibration that `to_json` wrote. Raises BadSettings, naming what is missing, unknown or out of range."""
        names = {one.name for one in fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            got = sorted(map(str, document)) if isinstance(document, Mapping) else type(document).__name__
            raise BadSettings(f"want a count head's calibration with {', '.join(sorted(names))}, got {got}")
        return cls(**document)

    def probabilities(self, logits: ArrayLike) -> Floats:
        """P(outcome), (n, max_count + 2), of logits (n, `logit_columns`). Raises BadVectors for other or infinite ones."""
        return np.exp(_log_probabilities(self.checked_logits(logits), self.temperature, self.kind))

    def counts(self, logits: ArrayLike) -> list[Count]:
        """One Count a row of logits (n, `logit_columns`); low ≤ value ≤ high. Raises BadVectors for other or infinite ones."""
        logs = _log_probabilities(self.checked_logits(logits), self.temperature, self.kind)  # (n, C)
        probabilities = np.exp(logs)
        within = logs[:, :-1]  # (n, C − 1): 0 … max_count; in logarithms nothing vanishes beside a certain "more"
        values = within.argmax(axis=1)
        shares = np.exp(within - within.max(axis=1, keepdims=True))
        expected = shares @ np.arange(self.max_count + 1) / shares.sum(axis=1)
        lows, highs = intervals(probabilities, values, self.threshold)
        rows = zip(values.tolist(), expected.tolist(), probabilities.tolist(), lows.tolist(), highs.tolist(), strict=True)
        return [
            Count(value=value, expected=mean, probabilities=tuple(row[:-1]), more=row[-1], low=low, high=high)
            for value, mean, row, low, high in rows
        ]

    def logits(self, counts: Sequence[Count]) -> Floats:
        """Logits (n, `logit_columns`) that give these counts' probabilities at temperature 1.

        >>> head = Calibration("corn", 1)
        >>> head.logits(head.counts([[0.5, -1.0]])).round(6).tolist()
        [[0.5, -1.0]]
        """
        floor = np.finfo(np.float64).tiny
        rows = np.array([(*count.probabilities, count.more) for count in counts], np.float64).reshape(-1, self.max_count + 2)
        if self.kind == "softmax":
            return np.log(np.maximum(rows, floor))
        reached = rows[:, ::-1].cumsum(axis=1)[:, ::-1]  # (n, C): P(y > k − 1)
        logits: Floats = np.log(np.maximum(reached[:, 1:], floor)) - np.log(np.maximum(rows[:, :-1], floor))
        return logits

    def checked_logits(self, logits: ArrayLike) -> NDArray[Any]:  # any real type
        """The same logits as an array, once they have as many columns as this head. Raises BadVectors when they have not."""
        rows, columns = np.asarray(logits), logit_columns(self.kind, self.max_count)
        if rows.ndim != 2 or rows.shape[1] != columns:
            raise BadVectors(f"want {self.kind} count logits (n, {columns}) for max_count {self.max_count}, got {rows.shape}")
        return rows


def fit_calibration(
    logits: ArrayLike, true_counts: Sequence[int] | Integers, *, kind: CountKind, max_count: int, coverage: float = COVERAGE
) -> Calibration:
    """Temperature and interval threshold, both from validation pictures that the head was not trained on.

    logits: (n, `logit_columns`). true_counts: (n,). The threshold is the ⌈(n + 1)·coverage⌉-th smallest score, so that an
    interval holds a new picture's count with at least this probability when it is drawn like the validation pictures;
    with too few pictures to promise that, it is 1 and intervals hold all outcomes.
    Raises BadSettings or BadVectors when the two do not fit each other or are out of range.
    Source: split conformal prediction, Angelopoulos and Bates 2021, arXiv:2107.07511, section 1.
    """
    rows = Calibration(kind, max_count, coverage=coverage).checked_logits(logits)
    truth = outcomes(true_counts, max_count)
    temperature = fit_temperature(rows, truth, kind)
    probabilities = np.exp(_log_probabilities(rows, temperature, kind))
    scores = joining_masses(probabilities, probabilities[:, :-1].argmax(axis=1))[np.arange(len(truth)), truth]  # (n,)
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    threshold = float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0
    return Calibration(kind, max_count, temperature, coverage, threshold)


def joining_masses(probabilities: Floats, starts: Integers) -> Floats:
    """How much probability an interval holds at the moment when each outcome joins it.

    probabilities: (n, C). starts: (n,), where each row's interval starts; it grows by its likelier neighbour (the lower
    one of two equals), so it stays contiguous. Returns (n, C), from 0 (the start itself) to 1.

    >>> joining_masses(np.array([[0.1, 0.5, 0.3, 0.1]]), np.array([1])).round(3).tolist()
    [[0.8, 0.0, 0.5, 0.9]]
    """
    n, columns = probabilities.shape
    rows = np.arange(n)
    walled = np.pad(probabilities, ((0, 0), (1, 1)), constant_values=-1.0)  # (n, C + 2): beyond the ends is never likelier
    masses = np.zeros((n, columns))
    low, high = starts.astype(np.int64), starts.astype(np.int64)
    held = probabilities[rows, starts]
    for _ in range(columns - 1):
        goes_up = walled[rows, high + 2] > walled[rows, low]
        high = high + goes_up
        low = low - ~goes_up
        joined = np.where(goes_up, high, low)
        masses[rows, joined] = np.minimum(held, 1.0)
        held = held + probabilities[rows, joined]
    return masses


def intervals(probabilities: Floats, starts: Integers, threshold: float) -> tuple[Integers, Integers]:
    """The first and last outcome of each row's interval: grown from its start until it holds more than the threshold."""
    inside = joining_masses(probabilities, starts) <= threshold  # (n, C); contiguous, never empty
    return inside.argmax(axis=1), inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)


def likeliest_in_words(count: Count) -> str:
    """The likeliest outcome of a count: `2`, `more than 9`.

    >>> likeliest_in_words(Count(1, 1.0, (0.1, 0.4), 0.5, 1, 2))
    'more than 1'
    """
    most = len(count.probabilities) - 1
    return f"more than {most}" if count.more > count.probabilities[count.value] else str(count.value)


def interval_in_words(count: Count) -> str:
    """The calibrated interval of a count: `2 to 4`, `more than 9`.

    >>> interval_in_words(Count(1, 1.0, (0.1, 0.4), 0.5, 1, 2))
    '1 to more than 1'
    """
    most = len(count.probabilities) - 1
    low, high = (f"more than {most}" if bound > most else str(bound) for bound in (count.low, count.high))
    return low if low == high else f"{low} to {high}"


def _log_probabilities(logits: ArrayLike, temperature: float, kind: CountKind) -> Floats:
    rows = np.asarray(logits)
    if rows.ndim != 2 or rows.shape[1] < 2 or not np.issubdtype(rows.dtype, np.number):
        raise BadVectors(f"want count logits of shape (n, outcomes), got {rows.dtype} {rows.shape}")
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise BadVectors(f"count logits of row {bad} are not finite; the model's weights or the picture's pixels are damaged")
    scaled = rows.astype(np.float64) / temperature
    if kind == "softmax":
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        softmax: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return softmax
    goes_on = -np.logaddexp(0.0, -scaled)  # (n, C − 1) log P(y > k | y > k − 1)
    stops = -np.logaddexp(0.0, scaled)
    nothing = np.zeros((len(rows), 1))
    reached = np.concatenate([nothing, goes_on.cumsum(axis=1)], axis=1)  # (n, C) log P(y > k − 1)
    corn: Floats = reached + np.concatenate([stops, nothing], axis=1)
    return corn


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
