"""How good vectors are at finding: recall, mAP@R, score distributions, pairs. Pure functions, in blocks of queries.

A query is compared with all other pictures; it never finds itself. Every picture is a query unless said: `queries` of n rows
are the first so many, the rest are only found. What is relevant to a query is a `Relevance`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from binsight import vectors
from binsight.errors import BadSettings
from binsight.evaluate import Bools, Figures, Floats, Integers, mean_of
from binsight.vectors import Vectors

Relevance: TypeAlias = Callable[[Integers], Bools]  # queries (q,) → (q, n): which pictures are relevant to each
KS = (1, 5, 10)
BLOCK = 256  # queries compared at a time
SCORE_BINS = 2000  # of the score distributions, over −1 … 1
HISTOGRAM_BINS = 200  # of what is shown of them
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def same_label(labels: Sequence[str | int]) -> Relevance:
    """Relevant: the pictures of the same class. labels: n."""
    _, places = np.unique(np.asarray(labels), return_inverse=True)
    return lambda queries: np.asarray(places[queries][:, None] == places[None, :])


def shared_product(products: Sequence[Sequence[str]]) -> Relevance:
    """Relevant: the pictures that show at least one product of the query's. products: n lists, empty where not known."""
    holders = holders_of(products)

    def relevant(queries: Integers) -> Bools:
        found = np.zeros((len(queries), len(products)), bool)
        for row, query in enumerate(queries.tolist()):
            for product in products[query]:
                found[row, holders[product]] = True
        return found

    return relevant


def holders_of(products: Sequence[Sequence[str]]) -> dict[str, Integers]:
    """The pictures that show each product."""
    holders: dict[str, list[int]] = defaultdict(list)
    for index, held in enumerate(products):
        for product in held:
            holders[product].append(index)
    return {product: np.array(pictures) for product, pictures in holders.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """What each query found. relevant: (n,) how many others are relevant to it; a query with none is left out of all means.

    first: (n,) the rank of the first relevant one, from 1; 0 where none is. precision: (n,) mAP@R's term, 0 where none is.
    """

    relevant: Integers
    first: Integers
    precision: Floats

    @property
    def is_query(self) -> Bools:
        return self.relevant > 0

    def figures(self, chosen: Bools | None = None, *, ks: Sequence[int] = KS) -> Figures:
        """recall@k: queries with a relevant picture among their k nearest; mAP@R: Musgrave et al. 2020, arXiv:2003.08505."""
        here = self.is_query if chosen is None else self.is_query & chosen
        recall = {f"recall@{k}": mean_of(self.first[here] <= k) for k in ks}
        return {"queries": int(here.sum())} | recall | {"map@r": mean_of(self.precision[here])}


def retrieve(rows: Vectors, relevant: Relevance, *, queries: int | None = None) -> Retrieved:
    """Rank all others for every query. rows: (n, dim) unit rows. Of equal scores, the earlier picture comes first.

    mAP@R of a query with R relevant ones: 1/R · Σ over ranks i ≤ R that hold a relevant one of the precision at i.
    """
    counts, first = np.zeros((2, len(rows)), np.int64)
    precision = np.zeros(len(rows))
    for asking, scores, is_relevant in _blocks(rows, relevant, queries):
        found = is_relevant.sum(axis=1)
        counts[asking] = found
        if not found.any():
            continue
        ranking = np.argsort(-scores, axis=1, kind="stable")  # (q, n); the query itself is last
        hits = np.take_along_axis(is_relevant, ranking, axis=1)
        first[asking] = np.where(found > 0, hits.argmax(axis=1) + 1, 0)
        top = hits[:, : found.max()]  # (q, R of the richest query)
        ranks = np.arange(1, top.shape[1] + 1)
        counted = top & (ranks <= found[:, None])
        precision[asking] = (counted * (top.cumsum(axis=1) / ranks)).sum(axis=1) / np.maximum(found, 1)
    return Retrieved(counts, first, precision)


def retrieval_figures(
    rows: Vectors,
    relevant: Relevance,
    *,
    classes: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    queries: int | None = None,
) -> Figures:
    """What `evaluate retrieval` says of one kind of relevance: recall@k, mAP@R, score distributions, and by class if given."""
    found = retrieve(rows, relevant, queries=queries)
    figures: Figures = {"gallery": len(rows)} | found.figures(ks=ks) | {"chance@1": chance(found)}
    if classes is not None:
        names = np.asarray(classes)
        figures["per_class"] = {str(name): found.figures(names == name, ks=ks) for name in np.unique(names[:queries])}
    return figures | {"scores": score_distributions(rows, relevant, queries=queries)}


def chance(found: Retrieved) -> float | None:
    """recall@1 of a random order: the mean share of relevant pictures among the others."""
    here = found.is_query
    return mean_of(found.relevant[here] / max(len(found.relevant) - 1, 1))


def score_distributions(rows: Vectors, relevant: Relevance, *, queries: int | None = None) -> Figures:
    """Scores of all pairs of a query and another picture, those relevant to each other ("same") and the others ("different").

    Each: "n" pairs, "mean", "quantiles", "histogram" (200 equal bins of −1 … 1). "auc": the chance that a "same" pair scores
    higher than a "different" one (one half for equal ones). Quantiles and AUC are exact to 0.001 of score.
    """
    histograms = np.zeros((2, SCORE_BINS), np.int64)
    sums = np.zeros(2)
    for asking, scores, is_relevant in _blocks(rows, relevant, queries):
        is_later = np.arange(len(rows)) > asking[:, None]  # (q, n): every pair once
        for kind, mask in enumerate((is_relevant & is_later, is_later & ~is_relevant)):
            chosen = scores[mask]
            places = np.clip(((chosen + 1) * (SCORE_BINS / 2)).astype(np.int64), 0, SCORE_BINS - 1)
            histograms[kind] += np.bincount(places, minlength=SCORE_BINS)
            sums[kind] += float(chosen.sum())
    same, different = histograms.astype(np.float64)
    pairs = same.sum() * different.sum()
    below = different.cumsum() - different
    auc = float((same * (below + different / 2)).sum() / pairs) if pairs else None
    words: Figures = {name: _distribution(histograms[kind], sums[kind]) for kind, name in enumerate(("same", "different"))}
    return words | {"auc": auc}


def _distribution(histogram: Integers, total: float) -> Figures:
    n = int(histogram.sum())
    if not n:
        return {"n": 0, "mean": None, "quantiles": None, "histogram": [0] * HISTOGRAM_BINS}
    middles = (np.arange(SCORE_BINS) + 0.5) * (2 / SCORE_BINS) - 1
    places = np.searchsorted(histogram.cumsum(), np.array(_QUANTILES) * n)
    quantiles = {str(share): float(middles[place]) for share, place in zip(_QUANTILES, places.tolist(), strict=True)}
    coarse = histogram.reshape(HISTOGRAM_BINS, -1).sum(axis=1).tolist()
    return {"n": n, "mean": total / n, "quantiles": quantiles, "histogram": coarse}


# "Is product X in this bin?"


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Balanced questions "is product X in this bin?": as many with the answer yes (`same`) as no (`different`).

    same, different: (q,) the score that answers each: the best cosine of the bin with other pictures that show X.
    """

    same: Floats
    different: Floats


def product_questions(
    rows: Vectors, products: Sequence[Sequence[str]], *, generator: np.random.Generator, references: int | None = None
) -> Questions:
    """One question with yes and one with no for every bin and product that another picture shows too.

    references: how many pictures of the product the bin is compared with, drawn at random; None: all. 1 makes them pairs of
    pictures, as the published baseline asks. The product of a "no" is drawn among those of the "yes" questions, so that
    frequent products are asked for as often; it has one picture left out at random, as a "yes" has the bin's own.
    """
    holders = holders_of(products)
    asked = [(own, product) for own, held in enumerate(products) for product in held if len(holders[product]) > 1]
    same, different = [], []
    for own, product in asked:
        absent = _absent(asked, set(products[own]), generator)
        if absent is None:  # the bin shows all products: there is no balanced question
            continue
        present = holders[product]
        present = generator.permutation(present[present != own])[:references]
        others = generator.permutation(holders[absent])[1:][:references]
        same.append(float((rows[present] @ rows[own]).max()))
        different.append(float((rows[others] @ rows[own]).max()))
    return Questions(np.array(same, np.float64), np.array(different, np.float64))


def _absent(asked: Sequence[tuple[int, str]], held: set[str], generator: np.random.Generator) -> str | None:
    for _ in range(20):  # nearly always the first
        product = asked[int(generator.integers(len(asked)))][1]
        if product not in held:
            return product
    left = sorted({product for _, product in asked} - held)
    return left[int(generator.integers(len(left)))] if left else None


def best_threshold(same: Floats, different: Floats) -> float:
    """The score from which on pairs are called the same, that makes `pair_accuracy` largest on these pairs.

    Half-way between two scores; raises BadSettings when one of the two is empty.
    """
    _check_pairs(same, different)
    scores = np.unique(np.concatenate([same, different]))
    edges = np.concatenate([[scores[0] - 1e-6], (scores[1:] + scores[:-1]) / 2, [scores[-1] + 1e-6]])
    kept = 1 - np.searchsorted(np.sort(same), edges) / len(same)
    refused = np.searchsorted(np.sort(different), edges) / len(different)
    return float(edges[(kept + refused).argmax()])


def pair_accuracy(same: Floats, different: Floats, *, threshold: float) -> float:
    """The share of pairs told right, both kinds weighing the same; a score ≥ threshold is called the same.

    threshold: fixed on other data (`best_threshold`). Raises BadSettings when one of the two is empty.
    """
    _check_pairs(same, different)
    return float(((same >= threshold).mean() + (different < threshold).mean()) / 2)


def _check_pairs(same: Floats, different: Floats) -> None:
    if not len(same) or not len(different):
        raise BadSettings(f"want pairs of both kinds, got {len(same)} same and {len(different)} different")


def _blocks(rows: Vectors, relevant: Relevance, queries: int | None) -> Iterator[tuple[Integers, Floats, Bools]]:
    """Queries (q,), their scores (q, n) with themselves at −∞, and what is relevant to them, without themselves."""
    last = len(rows) if queries is None else queries
    for start in range(0, last, BLOCK):
        asking = np.arange(start, min(start + BLOCK, last))
        scores = vectors.score(rows[asking], rows).astype(np.float64)
        is_relevant = relevant(asking)
        own = np.arange(len(asking))
        scores[own, asking] = -np.inf
        is_relevant[own, asking] = False
        yield asking, scores, is_relevant
