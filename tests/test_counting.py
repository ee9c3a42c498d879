"""Counts from logits: probabilities by hand, a temperature that is known, intervals that hold as often as they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from binsight.counting import (
    Calibration,
    CountKind,
    corn_probabilities,
    fit_calibration,
    fit_temperature,
    intervals,
    joining_masses,
    logit_columns,
    outcomes,
    softmax_probabilities,
)
from binsight.errors import BadSettings, BadVectors

Floats = NDArray[np.float64]
MAX_COUNT = 9


def simulated(n: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Logits of an honest but noisy counter, and true counts: the larger the count, the blurrier it is seen."""
    generator = np.random.default_rng(seed)
    levels = np.arange(16)
    prior = np.exp(-0.5 * ((levels - 3.5) / 3.0) ** 2)
    prior /= prior.sum()
    blur = 0.25 + 0.3 * levels
    truth = generator.choice(16, size=n, p=prior)
    seen = truth + blur[truth] * generator.normal(size=n)
    posterior = prior * np.exp(-0.5 * ((seen[:, None] - levels) / blur) ** 2) / blur
    merged = np.concatenate([posterior[:, : MAX_COUNT + 1], posterior[:, MAX_COUNT + 1 :].sum(axis=1, keepdims=True)], axis=1)
    return np.log(merged / merged.sum(axis=1, keepdims=True) + 1e-6) + 0.4 * generator.normal(size=merged.shape), truth


# Probabilities


def test_softmax_of_two_equal_and_one_ln2_larger_logit_is_a_quarter_a_quarter_a_half() -> None:
    assert softmax_probabilities([[0.0, 0.0, math.log(2)]]) == pytest.approx(np.array([[0.25, 0.25, 0.5]]))


def test_softmax_at_temperature_two_takes_square_roots() -> None:
    assert softmax_probabilities([[0.0, math.log(4)]], 2.0) == pytest.approx(np.array([[1 / 3, 2 / 3]]))


def test_softmax_of_huge_logits_stays_finite() -> None:
    assert softmax_probabilities([[1e4, 0.0]]).tolist() == [[1.0, 0.0]]


def test_corn_multiplies_the_conditional_probabilities() -> None:
    """Sigmoids ½, ¾, ⅕: P(y>0) = ½, P(y>1) = ⅜, P(y>2) = 3/40; the differences are the outcomes."""
    logits = [[0.0, math.log(3), math.log(0.25)]]
    assert corn_probabilities(logits) == pytest.approx(np.array([[1 / 2, 1 / 8, 3 / 10, 3 / 40]]))


def test_corn_temperature_divides_every_logit() -> None:
    logits = np.array([[1.0, -2.0, 0.5]])
    assert corn_probabilities(logits, 4.0) == pytest.approx(corn_probabilities(logits / 4.0))


@pytest.mark.parametrize("probabilities", [softmax_probabilities, corn_probabilities])
def test_probabilities_add_up_to_one_for_logits_of_any_size(probabilities: Any) -> None:
    logits = np.random.default_rng(0).normal(size=(200, 8)) * 10.0 ** np.arange(-3, 5)
    assert probabilities(logits).sum(axis=1) == pytest.approx(np.ones(200), abs=1e-12)


def test_logits_that_are_not_finite_are_refused_with_their_row() -> None:
    with pytest.raises(BadVectors, match="row 1 are not finite"):
        softmax_probabilities([[0.0, 1.0], [math.nan, 0.0]])


def test_a_count_beyond_the_range_is_the_outcome_more() -> None:
    assert outcomes([0, 5, 6, 40], 5).tolist() == [0, 5, 6, 6]


@pytest.mark.parametrize("wrong", [[-1], [1.5], [math.nan], ["3"], [[1]], [True]])
def test_true_counts_that_are_no_counts_are_refused(wrong: Any) -> None:
    with pytest.raises(BadSettings, match="whole and at least 0"):
        outcomes(wrong, 5)


def test_true_counts_may_be_none_at_all() -> None:
    assert outcomes([], 5).shape == (0,)


# Temperature


@pytest.mark.parametrize("kind", ["softmax", "corn"])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_that_outcomes_were_drawn_with_is_found(kind: CountKind, temperature: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(20_000, 6)) * 3
    probabilities = (softmax_probabilities if kind == "softmax" else corn_probabilities)(logits, temperature)
    drawn = (probabilities.cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)
    assert fit_temperature(logits, drawn, kind) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_of_two_outcomes_is_that_of_scikit_learns_logistic_regression() -> None:
    """With two outcomes, 1 / temperature is the weight of an unpenalised regression on the difference of the logits."""
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(400, 2)) * 2
    difference = logits[:, 1] - logits[:, 0]
    truth = (generator.random(400) < 1 / (1 + np.exp(-difference / 1.7))).astype(int)
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(difference[:, None], truth)
    assert fit_temperature(logits, truth, "softmax") == pytest.approx(1 / reference.coef_[0, 0], rel=1e-4)


def test_a_head_that_is_always_right_gets_the_lowest_temperature() -> None:
    assert fit_temperature(np.eye(4), np.arange(4), "softmax") == pytest.approx(0.01, rel=1e-3)


def test_a_temperature_needs_an_outcome_for_each_row() -> None:
    with pytest.raises(BadSettings, match="one outcome a row"):
        fit_temperature(np.eye(4), np.arange(3), "softmax")
    with pytest.raises(BadSettings, match="at least one"):
        fit_temperature(np.empty((0, 4)), [], "softmax")


# Intervals


def grown_by_hand(row: list[float], start: int) -> list[float]:
    """`joining_masses` of one row, as one would do it with a pencil."""
    masses = [0.0] * len(row)
    low = high = start
    while high - low + 1 < len(row):
        held = sum(row[low : high + 1])
        if low == 0 or (high + 1 < len(row) and row[high + 1] > row[low - 1]):
            high += 1
            masses[high] = held
        else:
            low -= 1
            masses[low] = held
    return masses


def test_an_interval_grows_by_its_likelier_neighbour() -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.ones(7), size=100)
    starts = generator.integers(7, size=100)
    by_hand = [grown_by_hand(row.tolist(), int(start)) for row, start in zip(probabilities, starts, strict=True)]
    assert joining_masses(probabilities, starts) == pytest.approx(np.array(by_hand))


def test_an_interval_stops_growing_once_it_holds_more_than_the_threshold() -> None:
    """From 2 (0.5): 1 joins at 0.5, 3 at 0.75, 0 at 0.9, "more" at 0.97."""
    row = np.array([[0.07, 0.25, 0.5, 0.15, 0.03]])
    found = [tuple(int(end[0]) for end in intervals(row, np.array([2]), threshold)) for threshold in (0.4, 0.6, 0.8, 0.95, 1)]
    assert found == [(2, 2), (1, 2), (1, 3), (0, 3), (0, 4)]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_intervals_hold_unseen_counts_as_often_as_they_say(coverage: float) -> None:
    """Split conformal: between coverage and coverage + 1/(n+1) on average over validation sets."""
    unseen, truth = simulated(4_000, seed=99)
    held = []
    for seed in range(20):
        logits, counts = simulated(400, seed)
        calibration = fit_calibration(logits, counts, kind="softmax", max_count=MAX_COUNT, coverage=coverage)
        answers = calibration.counts(unseen)
        inside = [a.low <= min(t, MAX_COUNT + 1) <= a.high for a, t in zip(answers, truth.tolist(), strict=True)]
        held.append(np.mean(inside))
    assert coverage - 0.01 <= np.mean(held) <= coverage + 0.02


class Known(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A fitted classifier, for MAPIE: its rows are their own probabilities."""

    def __init__(self) -> None:
        self.classes_ = np.arange(MAX_COUNT + 2)
        self.is_fitted_ = True

    def fit(self, x: Floats, y: Floats) -> Known:
        return self

    def predict_proba(self, x: Floats) -> Floats:
        return x

    def predict(self, x: Floats) -> NDArray[np.int64]:
        likeliest: NDArray[np.int64] = x.argmax(axis=1)
        return likeliest


def against_mapie(score: str) -> tuple[float, float, float, float]:
    """Coverage and mean width of our intervals, then coverage and mean span of the sets MAPIE makes with one of its scores."""
    from mapie.classification import SplitConformalClassifier  # late: each process that runs tests would load it

    logits, counts = simulated(2_000, seed=4)
    unseen, unseen_counts = simulated(6_000, seed=5)
    calibration = fit_calibration(logits, counts, kind="softmax", max_count=MAX_COUNT)
    reference = SplitConformalClassifier(Known(), confidence_level=0.9, conformity_score=score, prefit=True)
    reference.conformalize(calibration.probabilities(logits), outcomes(counts, MAX_COUNT))
    sets = reference.predict_set(calibration.probabilities(unseen))[1][:, :, 0]
    truth = outcomes(unseen_counts, MAX_COUNT)
    answers = calibration.counts(unseen)
    low, high = np.array([a.low for a in answers]), np.array([a.high for a in answers])
    span = sets.shape[1] - 1 - sets[:, ::-1].argmax(axis=1) - sets.argmax(axis=1)
    covered = float(np.mean((low <= truth) & (truth <= high)))
    return covered, float(np.mean(high - low)), float(sets[np.arange(len(truth)), truth].mean()), float(span.mean())


def test_intervals_hold_as_much_as_the_smallest_sets_and_are_no_wider_than_their_span() -> None:
    """MAPIE's "lac" makes the smallest sets on average (Sadinle et al. 2019), but they may have gaps."""
    covered, width, reference_covered, span = against_mapie("lac")
    assert covered == pytest.approx(reference_covered, abs=0.015)
    assert width <= span * 1.03


def test_intervals_are_narrower_than_the_adaptive_sets_that_hold_more_than_they_say() -> None:
    covered, width, reference_covered, span = against_mapie("aps")
    assert 0.88 <= covered <= reference_covered
    assert width < span


def test_the_threshold_is_the_smallest_score_that_the_finite_sample_rule_allows() -> None:
    """Nine pictures at 80%: ⌈10 · 0.8⌉ = the 8th smallest of the nine scores, of which seven are 0 (the start is right)."""
    logits = np.log(np.array([[0.6, 0.3, 0.1]] * 9))
    calibration = fit_calibration(logits, [0] * 7 + [1, 2], kind="softmax", max_count=1, coverage=0.8)
    shares = softmax_probabilities(logits[:1], calibration.temperature)[0]
    assert calibration.threshold == pytest.approx(shares[0])


def test_too_few_pictures_to_promise_anything_give_intervals_of_everything() -> None:
    logits, counts = simulated(8, seed=6)
    calibration = fit_calibration(logits, counts, kind="softmax", max_count=MAX_COUNT, coverage=0.9)
    assert calibration.threshold == 1.0
    assert {(answer.low, answer.high) for answer in calibration.counts(logits)} == {(0, MAX_COUNT + 1)}


def test_an_ordinal_head_is_calibrated_in_the_same_way() -> None:
    generator = np.random.default_rng(7)
    logits = generator.normal(size=(3_000, 5)) * 2
    probabilities = corn_probabilities(logits, 2.0)
    drawn = (probabilities.cumsum(axis=1) < generator.random((3_000, 1))).sum(axis=1)
    calibration = fit_calibration(logits[:1_500], drawn[:1_500], kind="corn", max_count=4)
    assert calibration.temperature == pytest.approx(2.0, rel=0.2)
    inside = [a.low <= t <= a.high for a, t in zip(calibration.counts(logits[1_500:]), drawn[1_500:].tolist(), strict=True)]
    assert 0.88 <= np.mean(inside) <= 0.93


# Counts


def test_a_count_holds_value_mean_probabilities_more_and_interval() -> None:
    """Renormalised over 0 … 2: 1/8, 5/8, 2/8, so the mean is 9/8; "more" is the likeliest outcome but never the value."""
    logits = np.log(np.array([[0.05, 0.25, 0.1, 0.6]]))
    (count,) = Calibration("softmax", 2, threshold=0.9).counts(logits)
    assert count.value == 1
    assert count.expected == pytest.approx(9 / 8)
    assert count.probabilities == pytest.approx((0.05, 0.25, 0.1))
    assert count.more == pytest.approx(0.6)
    assert (count.low, count.high) == (1, 3)  # 1, then 2, then "more": 0.95 > 0.9


def test_the_interval_always_holds_the_value() -> None:
    logits = np.random.default_rng(8).normal(size=(300, MAX_COUNT + 2)) * 3
    for count in Calibration("softmax", MAX_COUNT, threshold=0.5).counts(logits):
        assert 0 <= count.low <= count.value <= count.high <= MAX_COUNT + 1


def test_counts_are_plain_numbers_that_json_can_write() -> None:
    (count,) = Calibration("corn", 1).counts(np.zeros((1, 2), np.float32))
    assert json.loads(json.dumps([count.value, count.expected, *count.probabilities, count.more, count.low, count.high])) == [
        0, 1 / 3, 0.5, 0.25, 0.25, 0, 2,
    ]  # fmt: skip


def test_the_mean_is_known_even_where_more_is_certain() -> None:
    (count,) = Calibration("softmax", 2).counts([[0.0, math.log(3), -50.0, 2000.0]])
    assert (count.value, count.more) == (1, 1.0)
    assert count.expected == pytest.approx(3 / 4)


def test_no_rows_give_no_counts() -> None:
    assert Calibration("softmax", 5).counts(np.empty((0, 7))) == []


@pytest.mark.parametrize(("kind", "columns"), [("softmax", 7), ("corn", 6)])
def test_logits_of_another_width_are_refused(kind: CountKind, columns: int) -> None:
    assert logit_columns(kind, 5) == columns
    with pytest.raises(BadVectors, match=rf"want {kind} count logits \(n, {columns}\) for max_count 5, got \(2, 4\)"):
        Calibration(kind, 5).counts(np.zeros((2, 4)))


# Storing


def test_a_calibration_comes_back_from_json_as_it_was() -> None:
    calibration = Calibration("corn", 9, 1.25, 0.95, 0.875)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "coral"}, "want a count head of kind 'softmax' or 'corn', got 'coral'"),
        ({"max_count": 0}, "want max_count from 1 to 1000, got 0"),
        ({"max_count": True}, "want max_count from 1 to 1000, got True"),
        ({"max_count": 5.0}, "want max_count from 1 to 1000, got 5.0"),
        ({"temperature": 0.0}, "want a temperature from 0.0001 to 10000, got 0.0"),
        ({"temperature": math.nan}, "want a temperature from 0.0001 to 10000, got nan"),
        ({"temperature": "1"}, "want a temperature from 0.0001 to 10000, got '1'"),
        ({"coverage": 1.0}, "want a coverage between 0 and 1, got 1.0"),
        ({"threshold": -0.1}, "want a threshold from 0 to 1, got -0.1"),
        ({"threshold": math.nan}, "want a threshold from 0 to 1, got nan"),
    ],
)
def test_a_calibration_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    document = Calibration("softmax", 5).to_json() | changes
    with pytest.raises(BadSettings) as caught:
        Calibration.from_json(document)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "document", [None, [], "softmax", {}, {"kind": "softmax"}, Calibration("softmax", 5).to_json() | {"x": 1}]
)
def test_a_document_that_is_no_calibration_is_refused(document: Any) -> None:
    with pytest.raises(
        BadSettings, match="want a count head's calibration with coverage, kind, max_count, temperature, threshold"
    ):
        Calibration.from_json(document)


def test_an_out_of_range_coverage_is_refused_before_fitting() -> None:
    with pytest.raises(BadSettings, match="want a coverage between 0 and 1, got 1"):
        fit_calibration(np.zeros((1, 7)), [1], kind="softmax", max_count=5, coverage=1)


def test_a_wider_coverage_never_narrows_an_interval() -> None:
    logits, _ = simulated(200, seed=9)
    narrow = Calibration("softmax", MAX_COUNT, threshold=0.7)
    for small, large in zip(narrow.counts(logits), replace(narrow, threshold=0.9).counts(logits), strict=True):
        assert large.low <= small.low <= small.high <= large.high


def test_logits_of_another_head_are_refused_before_fitting() -> None:
    with pytest.raises(BadVectors, match=r"want corn count logits \(n, 6\) for max_count 5, got \(2, 7\)"):
        fit_calibration(np.zeros((2, 7)), [1, 2], kind="corn", max_count=5)
    with pytest.raises(BadSettings, match="one outcome a row"):
        fit_calibration(np.zeros((2, 7)), [1], kind="softmax", max_count=5)
