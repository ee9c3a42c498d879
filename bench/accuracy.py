"""How well a model counts and finds on photos that it has not learnt from: `python -m bench.accuracy`.

By default the shipped model, on the test part of the product-group split that it was trained with (80/10/10, seed 0): counts of
bins with 0–5 items beside the best constant answer, intervals, bins that share a product, "is product X in this bin?", and
PC parts by leave-one-out, which it has never seen at all. `pair` figures fix their threshold on the validation part.
"""

from __future__ import annotations

import argparse
import os
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
    parser.add_argument("--split-name", default="test", help="train shows how much it has learnt by heart")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    encoder = load_encoder(options.model)
    bins = open_labelled(str(options.data / "abid"))
    job = Job(encoder, bins, make_split(bins, fractions=(80, 10, 10), seed=0), split_name=options.split_name)
    figures = []
    if encoder.heads is not None and encoder.heads.count is not None:
        found = evaluate_counts(job).report
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
            Figure("all bins: intervals hold the count", found["all"]["coverage"], "", ">= 0.88"),
            Figure("all bins: width of intervals", found["all"]["width"], "items", "<= 3.5"),
            Figure("0–5 items: intervals hold the count", found["coverage"], ""),
            Figure("0–5 items: width of intervals", found["width"], "items"),
            Figure("0–5 items: of it within 0 … 5", found["width_in_range"], "items", "<= 3.5"),
        ]
    found = evaluate_retrieval(job).report
    unseen = f"{found['gallery']} bins"
    figures += [
        Figure(f"bins that share a product, {unseen}: recall@1", found["recall@1"], "", ">= 0.65, then 0.75 (of 3,697)"),
        Figure(f"bins that share a product, {unseen}: recall@10", found["recall@10"], "", ">= 0.78, then 0.85 (of 3,697)"),
    ]
    if found["pairs"]:
        figures += [Figure(f"is X in this bin? {name}", value, "", ">= 0.80") for name, value in pair_figures(found["pairs"])]
    parts = open_labelled(str(options.data / "pc_parts"))
    whole = Split(
        tuple(SplitRow(one.uri, "test", one.uri, None, one.label) for one in parts.pictures), "random", (100.0,), None
    )
    found = evaluate_retrieval(Job(encoder, parts, whole)).report
    figures.append(Figure("PC parts by leave-one-out: recall@1", found["recall@1"], "", ">= 0.70"))
    tell("accuracy", figures, as_json=options.json, model=Path(options.model).name, split=options.split_name)


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
