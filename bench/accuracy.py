"""How well a model counts and finds on photos that it has not learnt from: `python -m bench.accuracy`.

By default the shipped model, on the product-group split that it was trained with (90/5/5, seed 1): counts of bins with 0–5
items beside the best constant answer, bins that share a product, and PC parts by leave-one-out, which it has never seen at
all. Of the shipped model the validation part fixed temperature and intervals. So counts and bins are judged on both parts
together (which two of three counters it counts with was chosen there, too); intervals, and "is product X in this bin?" (its
threshold is fixed on validation), on test.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from bench.report import Figure, tell
from binsight.data.labelled import open_labelled
from binsight.data.splits import Split, SplitRow, make_split
from binsight.encoder import load_encoder
from binsight.evaluation import Job, evaluate_counts, evaluate_retrieval

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models/bins-mobilenetv2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("BINSIGHT_DATA") or ROOT.parent / "shared/data")
    parser.add_argument("--model", default=str(SHIPPED))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--fractions", type=float, nargs=3, default=(90, 5, 5), help="of the model's split, in percent")
    parser.add_argument("--seed", type=int, default=1, help="of the model's split")
    parser.add_argument("--test-only", action="store_true", help="for a model whose epoch was chosen on validation")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    encoder = load_encoder(options.model)
    bins = open_labelled(str(options.data / "abid"))
    split = make_split(bins, fractions=tuple(options.fractions), seed=options.seed)
    job = Job(encoder, bins, split)
    unseen = job if options.test_only else replace(job, split=together(split))
    figures = []
    if encoder.heads is not None and encoder.heads.count is not None:
        found, of_test = evaluate_counts(unseen).report, evaluate_counts(job).report
        low, high = found["bootstrap"]["accuracy"]
        constant = found["constant"]
        figures += [
            Figure("bins with 0–5 items judged", found["n"], "photos"),
            Figure(f"count accuracy (95%: {low:.3f} … {high:.3f})", found["accuracy"], "", ">= 0.45, then 0.50"),
            Figure("count accuracy of the best constant answer", constant["accuracy"], ""),
            Figure("RMSE of the mean", found["rmse_mean"], "items", "<= 0.94, then 0.88"),
            Figure("RMSE of the most likely count", found["rmse"], "items"),
            Figure("RMSE of the best constant mean", constant["rmse_mean"], "items"),
            Figure("within one", found["within_1"], ""),
            Figure("expected calibration error", found["ece"], ""),
            Figure("all bins: intervals hold the count", of_test["all"]["coverage"], "", ">= 0.88"),
            Figure("all bins: width of intervals", of_test["all"]["width"], "items", "<= 3.5"),
            Figure("0–5 items: intervals hold the count", of_test["coverage"], ""),
            Figure("0–5 items: width of intervals", of_test["width"], "items"),
            Figure("0–5 items: of it within 0 … 5", of_test["width_in_range"], "items", "<= 3.5"),
        ]
    found = evaluate_retrieval(unseen).report
    of = f"bins that share a product, {found['gallery']} bins"
    figures += [
        Figure(f"{of}: recall@1", found["recall@1"], "", ">= 0.65, then 0.75 (of 3,697)"),
        Figure(f"{of}: recall@10", found["recall@10"], "", ">= 0.78, then 0.85 (of 3,697)"),
    ]
    pairs = evaluate_retrieval(job).report["pairs"] or {}
    figures += [Figure(f"is X in this bin? {name}", value, "", ">= 0.80") for name, value in pair_figures(pairs)]
    parts = open_labelled(str(options.data / "pc_parts"))
    whole = Split(
        tuple(SplitRow(one.uri, "test", one.uri, None, one.label) for one in parts.pictures), "random", (100.0,), None
    )
    found = evaluate_retrieval(Job(encoder, parts, whole)).report
    figures.append(Figure("PC parts by leave-one-out: recall@1", found["recall@1"], "", ">= 0.70"))
    tell("accuracy", figures, as_json=options.json, model=Path(options.model).name)


def together(split: Split) -> Split:
    """The split with its validation and test parts as one, "test"."""
    return replace(split, rows=tuple(replace(row, split="test") if row.split == "val" else row for row in split.rows))


def pair_figures(pairs: dict[str, object]) -> list[tuple[str, float]]:
    """The accuracies among the figures of pairs, with where they stand."""
    found: list[tuple[str, float]] = []
    for name, value in pairs.items():
        if isinstance(value, dict):
            found += [(f"{name}: {inner}", figure) for inner, figure in pair_figures(value)]
        elif name == "accuracy" and isinstance(value, float):
            found.append((name, value))
    return found


if __name__ == "__main__":
    main()
