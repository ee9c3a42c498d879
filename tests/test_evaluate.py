"""Measures against scikit-learn, torchmetrics, pytorch-metric-learning, and by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk

from binsight import evaluate, evaluate_count, evaluate_retrieval, vectors
from binsight.errors import BadSettings
from binsight.evaluate_count import count_figures, ranged
from binsight.evaluate_retrieval import retrieval_figures, retrieve, same_label, shared_product
from binsight.records import Count


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def said(*probabilities: float, more: float = 0.0, low: int = 0, high: int | None = None) -> Count:
    """A count with these probabilities of 0, 1, …"""
    ends = (low, len(probabilities) if high is None else high)
    mean = sum(k * p for k, p in enumerate(probabilities)) / max(sum(probabilities), 1e-9)
    return Count(int(np.argmax(probabilities)), mean, probabilities, more, *ends)


def sure(value: int, max_count: int = 5, **ends: int) -> Count:
    return said(*(float(k == value) for k in range(max_count + 1)), **ends)


# What all share


def test_the_confusion_matrix_is_scikit_learns() -> None:
    true, given = generator().integers(5, size=(2, 300))
    assert np.array_equal(evaluate.confusion_matrix(true, given, 6), sk.confusion_matrix(true, given, labels=range(6)))


def test_a_class_outside_the_confusion_matrix_is_refused() -> None:
    with pytest.raises(BadSettings, match="want classes from 0 to 2, got some outside"):
        evaluate.confusion_matrix([0, 3], [0, 1], 3)


def test_answers_and_truth_of_different_length_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"want one answer a picture, got \(1,\) for \(2,\)"):
        evaluate.confusion_matrix([0, 1], [0], 3)


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_is_scikit_learns(k: int) -> None:
    probabilities = generator().dirichlet(np.ones(5), size=300)
    true = generator(1).integers(5, size=300)
    assert evaluate.top_k(probabilities, true, k=k).mean() == pytest.approx(sk.top_k_accuracy_score(true, probabilities, k=k))


def test_top_1_of_equal_probabilities_is_the_first_class_as_argmax_says() -> None:
    assert evaluate.top_k([[0.5, 0.5], [0.5, 0.5]], [0, 1], k=1).tolist() == [True, False]


def test_calibration_error_is_torchmetrics() -> None:
    from torchmetrics.classification import BinaryCalibrationError  # late: each process that runs tests would load it

    confidence = generator().random(2_000)
    right = generator(1).random(2_000) < confidence**2
    reference = BinaryCalibrationError(n_bins=15, norm="l1")(
        torch.from_numpy(confidence), torch.from_numpy(right.astype(np.int64))
    )
    assert evaluate.expected_calibration_error(confidence, right) == pytest.approx(float(reference), abs=1e-6)


def test_a_calibrated_answer_has_no_calibration_error() -> None:
    assert evaluate.expected_calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0.0)
    assert evaluate.expected_calibration_error([1.0, 1.0], [True, False]) == pytest.approx(0.5)


def test_reliability_tells_the_bins_that_hold_answers() -> None:
    rows = evaluate.reliability([0.1, 0.5, 0.6, 1.0], [False, True, False, True], bins=2)
    assert rows == [
        {"from": 0.0, "to": 0.5, "n": 2, "confidence": pytest.approx(0.3), "accuracy": 0.5},
        {"from": 0.5, "to": 1.0, "n": 2, "confidence": pytest.approx(0.8), "accuracy": 0.5},
    ]


def test_bootstrap_bounds_are_those_of_the_normal_approximation() -> None:
    values = generator().random((2_000, 1)) < 0.3
    low, high = evaluate.bounds(evaluate.bootstrap_means(values, generator=generator(1))[:, 0])
    error = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 2_000)
    assert low == pytest.approx(values.mean() - error, abs=0.003)
    assert high == pytest.approx(values.mean() + error, abs=0.003)


def test_pictures_of_one_group_are_drawn_together() -> None:
    """100 groups of 20 equal pictures say as much as 100 pictures: bounds √20 times wider than of 2,000."""
    of_group = generator().random(100) < 0.5
    values = np.repeat(of_group, 20)[:, None]
    groups = [f"g{index // 20}" for index in range(2_000)]
    apart = evaluate.bootstrap_means(values, generator=generator(1))
    together = evaluate.bootstrap_means(values, generator=generator(1), groups=groups)
    assert together.std() / apart.std() == pytest.approx(math.sqrt(20), rel=0.1)
    assert together.mean() == pytest.approx(values.mean(), abs=0.01)


def test_the_bootstrap_says_the_same_for_the_same_seed() -> None:
    values = generator().random((50, 2))
    first, second = (evaluate.bootstrap_means(values, generator=generator(3), rounds=10) for _ in range(2))
    assert np.array_equal(first, second)


def test_one_answer_for_nearly_all_pictures_is_named() -> None:
    true = [k % 5 for k in range(100)]
    found = evaluate.collapse(true, [3] * 95 + [1] * 5)
    assert found == {"collapsed": True, "answer": 3, "share": 0.95, "true_share": 0.2}


def test_one_answer_that_is_mostly_true_is_no_collapse() -> None:
    assert not evaluate.collapse([3] * 92 + [1] * 8, [3] * 100)["collapsed"]


def test_different_answers_are_no_collapse() -> None:
    assert not evaluate.collapse([0, 1] * 50, [1, 0] * 50)["collapsed"]


def test_a_few_pictures_say_nothing_of_a_collapse() -> None:
    assert not evaluate.collapse([0, 1, 2], [3, 3, 3])["collapsed"]


# Counts


def test_answers_up_to_a_count_are_renormalised() -> None:
    """Of 0.1, 0.2, 0.1 and 0.6 for more, up to 1: 1/3 and 2/3; the likeliest of all, 3, is out of range."""
    found = ranged([said(0.1, 0.2, 0.1, 0.6)], 1)
    assert found.probabilities == pytest.approx(np.array([[1 / 3, 2 / 3]]))
    assert (found.values.tolist(), found.means.tolist()) == ([1], [pytest.approx(2 / 3)])


def test_a_model_with_fewer_counts_gives_the_others_no_chance() -> None:
    assert ranged([said(0.5, 0.25, more=0.25)], 3).probabilities == pytest.approx(np.array([[2 / 3, 1 / 3, 0, 0]]))


def test_a_model_that_is_certain_of_more_answers_the_nearest() -> None:
    found = ranged([said(0.0, 0.0, 0.0, 1.0)], 2)
    assert (found.values.tolist(), found.means.tolist()) == ([2], [2.0])


def five() -> tuple[list[int], list[Count]]:
    """True 0, 1, 2, 5 and 7; answered 0, 1 (mean 1.5), 4, 4, 5."""
    answers = [
        sure(0, low=0, high=1),
        said(0.0, 0.6, 0.3, 0.1, 0.0, 0.0, low=1, high=2),
        sure(4, low=3, high=5),
        sure(4, low=4, high=6),
        sure(5, low=4, high=6),
    ]
    return [0, 1, 2, 5, 7], answers


def test_count_figures_are_those_worked_out_by_hand() -> None:
    """On the four bins with 0 … 5: off by 0, 0, 2, 1; means off by 0, 0.5, 2, 1."""
    found = count_figures(*five(), generator=generator())
    assert {name: found[name] for name in ("n", "accuracy", "mae", "within_1", "coverage", "width")} == {
        "n": 4, "accuracy": 0.5, "mae": 0.75, "within_1": 0.75, "coverage": 0.75, "width": 1.5,
    }  # fmt: skip
    assert found["width_in_range"] == 1.25  # 4 … 6 is 4 … 5 where no more than 5 can be
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 4))
    assert found["rmse_mean"] == pytest.approx(math.sqrt(5.25 / 4))


def test_count_figures_are_scikit_learns() -> None:
    true = generator(1).integers(6, size=500)
    probabilities = generator(2).dirichlet(np.ones(7), size=500)
    answers = [said(*row[:6], more=row[6]) for row in probabilities.tolist()]
    found = count_figures(true.tolist(), answers, generator=generator())
    shares = probabilities[:, :6] / probabilities[:, :6].sum(axis=1, keepdims=True)
    given = shares.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, given))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(true, given))
    assert found["rmse_mean"] == pytest.approx(sk.root_mean_squared_error(true, shares @ np.arange(6)))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(true, given))
    recall = sk.recall_score(true, given, average=None, labels=range(6))
    assert [found["per_class"][str(k)]["accuracy"] for k in range(6)] == pytest.approx(recall.tolist())
    assert found["all"]["log_loss"] == pytest.approx(sk.log_loss(true, probabilities, labels=range(7)))
    assert found["confusion"] == sk.confusion_matrix(true, given).tolist()


def test_each_class_has_its_accuracy_and_error_as_the_baseline_tables_them() -> None:
    per_class = count_figures(*five(), generator=generator())["per_class"]
    assert list(per_class) == ["0", "1", "2", "3", "4", "5"]
    assert per_class["5"] == {"n": 1, "accuracy": 0.0, "rmse": 1.0, "rmse_mean": 1.0}
    assert per_class["1"] == {"n": 1, "accuracy": 1.0, "rmse": 0.0, "rmse_mean": pytest.approx(0.5)}
    assert per_class["3"] == {"n": 0, "accuracy": None, "rmse": None, "rmse_mean": None}


def test_all_bins_are_told_apart_with_more_as_one_outcome() -> None:
    """The bin of 7 is beyond the head's range: inside 4 … 6, where 6 stands for more."""
    found = count_figures(*five(), generator=generator())["all"]
    assert (found["n"], found["max_count"], found["beyond_max_count"]) == (5, 5, 1)
    assert (found["coverage"], found["width"]) == (0.8, 1.6)
    assert found["per_class"]["6"] == {"n": 1, "coverage": 1.0, "width": 2.0}


def test_the_best_constant_answers_stand_beside_the_figures() -> None:
    """Of 1, 1, 4, 4, 4: most often 4 (3/5), least square error among whole numbers 3, mean 2.8."""
    found = evaluate_count.constant_figures(np.array([1, 1, 4, 4, 4]))
    assert (found["count"], found["accuracy"]) == (4, 0.6)
    assert (found["rmse_count"], found["rmse"]) == (3, pytest.approx(math.sqrt(11 / 5)))
    assert (found["mean"], found["rmse_mean"]) == (pytest.approx(2.8), pytest.approx(math.sqrt(2.16)))
    assert (found["mae_count"], found["mae"]) == (4, pytest.approx(6 / 5))
    assert (found["within_1_count"], found["within_1"]) == (3, 0.6)


def test_count_figures_are_json_and_their_bounds_hold_them() -> None:
    found = json.loads(json.dumps(count_figures(*five(), generator=generator()), allow_nan=False))
    for name in ("accuracy", "rmse", "rmse_mean", "mae", "within_1"):
        low, high = found["bootstrap"][name]
        assert low <= found[name] <= high


def test_bins_with_more_items_than_asked_for_alone_are_refused() -> None:
    with pytest.raises(BadSettings, match="want pictures with 0 to 5 items, got none among 1; take a larger --up-to"):
        count_figures([7], [sure(5)], generator=generator())


def test_a_missing_answer_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"want one answer a picture and counts of at least 0, got 1 for \(2,\)"):
        count_figures([1, 2], [sure(1)], generator=generator())


# Labels


def test_label_figures_are_those_worked_out_by_hand() -> None:
    answers = [(("cpu", 0.7), ("fan", 0.2), ("ram", 0.1)), (("ram", 0.6), ("fan", 0.3), ("cpu", 0.1))]
    found = evaluate.label_figures(["cpu", "fan"], answers, generator=generator())
    assert (found["n"], found["top_1"], found["top_5"]) == (2, 0.5, 1.0)
    assert found["classes"] == ["cpu", "fan", "ram"]
    assert found["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert found["per_class"]["fan"] == {"n": 1, "top_1": 0.0}
    assert found["per_class"]["ram"] == {"n": 0, "top_1": None}
    assert found["constant"] == {"label": "cpu", "top_1": 0.5}
    json.dumps(found, allow_nan=False)


def test_a_class_that_the_model_does_not_know_is_wrong_and_named() -> None:
    found = evaluate.label_figures(["gpu"], [(("cpu", 0.7), ("fan", 0.3))], generator=generator())
    assert (found["top_1"], found["top_5"], found["unknown"]) == (0.0, 0.0, ["gpu"])


def test_answers_may_hold_the_likeliest_classes_alone() -> None:
    answers = [(("cpu", 0.7), ("fan", 0.2)), (("ram", 0.6), ("fan", 0.3))]
    found = evaluate.label_figures(["cpu", "fan"], answers, generator=generator())
    assert (found["classes"], found["top_1"], found["top_5"]) == (["cpu", "fan", "ram"], 0.5, 1.0)


def test_labels_collapsed_to_one_class_are_named() -> None:
    answers = [(("cpu", 0.7), ("fan", 0.3))] * 40
    found = evaluate.label_figures(["cpu", "fan"] * 20, answers, generator=generator())
    assert found["collapse"] == {"collapsed": True, "answer": "cpu", "share": 1.0, "true_share": 0.5}


# Retrieval


def cloud(n: int, classes: int, seed: int = 0) -> tuple[vectors.Vectors, NDArray[np.int64]]:
    """Unit rows around a centre a class."""
    drawn = generator(seed)
    labels = drawn.integers(classes, size=n)
    centres = drawn.normal(size=(classes, 8))
    return vectors.normalise(centres[labels] + 1.2 * drawn.normal(size=(n, 8))), labels


def test_recall_and_map_are_pytorch_metric_learnings() -> None:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator  # late, as above

    rows, labels = cloud(600, 12)
    found = retrieval_figures(rows, same_label(labels.tolist()))
    reference = AccuracyCalculator(include=("precision_at_1", "mean_average_precision_at_r"), k="max_bin_count").get_accuracy(
        torch.from_numpy(rows), torch.from_numpy(labels)
    )
    assert found["recall@1"] == pytest.approx(reference["precision_at_1"], abs=1e-9)
    assert found["map@r"] == pytest.approx(reference["mean_average_precision_at_r"], abs=1e-9)


def test_recall_at_ten_is_that_of_a_plain_loop() -> None:
    rows, labels = cloud(300, 30, seed=1)
    hits = []
    for query in range(len(rows)):
        others = [other for other in range(len(rows)) if other != query]
        if not any(labels[other] == labels[query] for other in others):
            continue
        nearest = sorted(others, key=lambda other: (-float(rows[query] @ rows[other]), other))[:10]
        hits.append(any(labels[other] == labels[query] for other in nearest))
    assert retrieval_figures(rows, same_label(labels.tolist()))["recall@10"] == pytest.approx(np.mean(hits))


def test_queries_that_are_the_first_rows_find_the_rest_too_as_a_plain_loop_says() -> None:
    rows, labels = cloud(300, 30, seed=2)
    found = retrieval_figures(rows, same_label(labels.tolist()), classes=[f"c{one}" for one in labels.tolist()], queries=40)
    hits: list[bool] = []
    scores: dict[bool, list[float]] = {True: [], False: []}
    for query in range(40):
        others = sorted(
            (other for other in range(300) if other != query), key=lambda other: (-float(rows[query] @ rows[other]), other)
        )
        if any(labels[other] == labels[query] for other in others):
            hits.append(labels[others[0]] == labels[query])
        for other in range(query + 1, 300):
            scores[bool(labels[other] == labels[query])].append(float(rows[query] @ rows[other]))
    assert (found["gallery"], found["queries"]) == (300, len(hits))
    assert found["recall@1"] == pytest.approx(np.mean(hits))
    assert sum(of["queries"] for of in found["per_class"].values()) == len(hits)
    for name, is_same in (("same", True), ("different", False)):
        assert found["scores"][name]["n"] == len(scores[is_same])
        assert found["scores"][name]["mean"] == pytest.approx(np.mean(scores[is_same]), abs=1e-5)


def on_circle(*degrees: float) -> vectors.Vectors:
    angles = np.radians(degrees)
    return vectors.normalise(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_ranks_and_precision_are_those_worked_out_by_hand() -> None:
    """From 0°: b at 10°, a at 20°, b at 30°, a at 40°. The first finds a at ranks 2 and 4, so R = 2: (0 + 1/2) / 2."""
    found = retrieve(on_circle(0, 10, 20, 30, 40), same_label(["a", "b", "a", "b", "a"]))
    assert (found.relevant[0], found.first[0], found.precision[0]) == (2, 2, pytest.approx(0.25))


def test_a_query_without_a_partner_is_left_out_but_stays_in_the_gallery() -> None:
    """"x" is the nearest of both "a", so they miss at 1; and asks for nothing itself."""  # fmt: skip
    found = retrieval_figures(on_circle(0, 10, 20), same_label(["a", "x", "a"]), classes=["a", "x", "a"])
    assert (found["gallery"], found["queries"], found["recall@1"], found["recall@5"]) == (3, 2, 0.0, 1.0)
    assert found["per_class"]["x"] == {"queries": 0, "recall@1": None, "recall@5": None, "recall@10": None, "map@r": None}
    assert found["chance@1"] == pytest.approx(0.5)


def test_bins_are_relevant_to_each_other_when_they_share_a_product() -> None:
    relevant = shared_product([("A", "B"), ("B",), ("C",), (), ("C", "A")])
    assert relevant(np.array([0, 3])).tolist() == [[True, True, False, False, True], [False] * 5]


def test_recall_by_product_does_not_need_classes() -> None:
    """0 and 2 share A, 1 and 3 share nothing: two queries, each with its partner second."""
    found = retrieval_figures(on_circle(0, 10, 20, 180), shared_product([("A",), ("B",), ("A", "C"), ()]))
    assert (found["queries"], found["recall@1"], found["recall@5"]) == (2, 0.0, 1.0)


def test_score_distributions_and_their_auc_are_those_of_all_pairs() -> None:
    rows, labels = cloud(400, 5, seed=2)
    first, second = np.triu_indices(len(rows), k=1)
    scores = (rows[first] * rows[second]).sum(axis=1, dtype=np.float64)
    is_same = labels[first] == labels[second]
    found = evaluate_retrieval.score_distributions(rows, same_label(labels.tolist()))
    assert (found["same"]["n"], found["different"]["n"]) == (int(is_same.sum()), int((~is_same).sum()))
    assert found["same"]["mean"] == pytest.approx(scores[is_same].mean(), abs=1e-6)
    assert found["different"]["quantiles"]["0.95"] == pytest.approx(np.quantile(scores[~is_same], 0.95), abs=0.002)
    assert sum(found["same"]["histogram"]) == is_same.sum()
    assert found["auc"] == pytest.approx(sk.roc_auc_score(is_same, scores), abs=1e-4)


def test_no_pair_of_a_kind_has_no_distribution() -> None:
    found = evaluate_retrieval.score_distributions(on_circle(0, 10), same_label(["a", "b"]))
    assert (found["same"]["mean"], found["auc"], found["different"]["n"]) == (None, None, 1)
    json.dumps(found, allow_nan=False)


# Pairs


def test_pair_accuracy_weighs_both_kinds_the_same() -> None:
    assert evaluate_retrieval.pair_accuracy(np.array([0.9, 0.4]), np.array([0.5, 0.1, 0.2, 0.3]), threshold=0.5) == 0.625


def test_the_best_threshold_parts_what_can_be_parted() -> None:
    same, different = np.array([0.8, 0.6]), np.array([0.5, 0.1])
    threshold = evaluate_retrieval.best_threshold(same, different)
    assert threshold == pytest.approx(0.55)
    assert evaluate_retrieval.pair_accuracy(same, different, threshold=threshold) == 1.0


def test_no_other_threshold_is_better() -> None:
    same, different = generator().normal(0.4, 0.3, 200), generator(1).normal(0.1, 0.3, 300)
    best = evaluate_retrieval.pair_accuracy(same, different, threshold=evaluate_retrieval.best_threshold(same, different))
    others = [evaluate_retrieval.pair_accuracy(same, different, threshold=t) for t in np.linspace(-2, 2, 4001)]
    assert best == pytest.approx(max(others))
    false, true, _ = sk.roc_curve([1] * 200 + [0] * 300, np.concatenate([same, different]))
    assert best == pytest.approx(max((true + 1 - false) / 2))


@pytest.mark.parametrize("kinds", [([], [0.1]), ([0.1], [])])
def test_pairs_of_one_kind_alone_are_refused(kinds: Any) -> None:
    with pytest.raises(BadSettings, match="want pairs of both kinds"):
        evaluate_retrieval.pair_accuracy(*map(np.array, kinds), threshold=0.0)


def test_a_product_is_asked_for_in_a_bin_that_holds_it_and_in_one_that_does_not() -> None:
    """Two pairs of bins at 0°, 10° (A) and 90°, 100° (B): yes scores cos 10°; no scores lie across, below cos 80°."""
    rows = on_circle(0, 10, 90, 100)
    found = evaluate_retrieval.product_questions(rows, [("A",), ("A",), ("B",), ("B",)], generator=generator())
    assert found.same == pytest.approx(np.full(4, math.cos(math.radians(10))), abs=1e-6)
    assert len(found.different) == 4
    assert found.different.max() <= math.cos(math.radians(80)) + 1e-6


def test_a_bin_is_compared_with_as_many_pictures_as_asked_for() -> None:
    """With all references the nearest of 10° and 60° answers; with one, either may."""
    rows = on_circle(0, 10, 60, 180, 180)
    products = [("A",), ("A",), ("A",), ("B",), ("B",)]
    one = evaluate_retrieval.product_questions(rows, products, generator=generator(), references=1)
    every = evaluate_retrieval.product_questions(rows, products, generator=generator())
    near, far = math.cos(math.radians(10)), math.cos(math.radians(60))
    assert every.same[0] == pytest.approx(near, abs=1e-6)
    assert min(abs(one.same[0] - near), abs(one.same[0] - far)) < 1e-6


def test_products_seen_once_are_not_asked_for() -> None:
    found = evaluate_retrieval.product_questions(on_circle(0, 10), [("A",), ("B",)], generator=generator())
    assert (len(found.same), len(found.different)) == (0, 0)
