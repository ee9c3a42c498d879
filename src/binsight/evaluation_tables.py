"""A model's figures as small tables, for a terminal or Markdown: one of all, one by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from binsight.evaluate import Figures

_RECALLS = ("recall@1", "recall@5", "recall@10", "map@r")


@dataclass(frozen=True, slots=True)
class Table:
    """columns: names; the first is of words, the others of numbers. rows: cells as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def count_tables(report: Figures) -> list[Table]:
    """The figures beside the best constant answer, then those of each count as the published baseline tables them."""
    constant, bounds, everything = report["constant"], report["bootstrap"], report["all"]
    compared = (
        (f"accuracy ({_range(report)})", "accuracy", _percent),
        ("RMSE of the most likely", "rmse", _number),
        ("RMSE of the mean", "rmse_mean", _number),
        ("MAE", "mae", _number),
        ("within ±1", "within_1", _percent),
    )
    rows = [(words, told(report[key]), _bounds(bounds[key]), told(constant[key])) for words, key, told in compared]
    rows += [
        ("calibration error (ECE)", _number(report["ece"]), "", ""),
        (f"interval coverage ({_range(report)})", _percent(report["coverage"]), "", ""),
        (f"interval width ({_range(report)})", _number(report["width"]), "", ""),
        (f"of it within {_range(report)}", _number(report["width_in_range"]), "", ""),
        ("interval coverage (all bins)", _percent(everything["coverage"]), "", ""),
        ("interval width (all bins)", _number(everything["width"]), "", ""),
    ]
    per_class = [
        (name, str(of["n"]), _percent(of["accuracy"]), _number(of["rmse"]), _number(of["rmse_mean"]))
        for name, of in report["per_class"].items()
    ]
    return [
        Table(("figure", f"n = {report['n']}", "95% interval", "best constant"), tuple(rows)),
        Table(("items", "n", "accuracy", "RMSE", "RMSE of the mean"), tuple(per_class)),
    ]


def label_tables(report: Figures) -> list[Table]:
    """Top-1 and top-5 beside the best constant answer, then top-1 by class."""
    bounds = report["bootstrap"]
    rows = (
        ("top-1", _percent(report["top_1"]), _bounds(bounds["top_1"]), _percent(report["constant"]["top_1"])),
        ("top-5", _percent(report["top_5"]), _bounds(bounds["top_5"]), ""),
        ("calibration error (ECE)", _number(report["ece"]), "", ""),
    )
    per_class = tuple((name, str(of["n"]), _percent(of["top_1"])) for name, of in report["per_class"].items())
    return [
        Table(("figure", f"n = {report['n']}", "95% interval", "best constant"), rows),
        Table(("class", "n", "top-1"), per_class),
    ]


def retrieval_tables(report: Figures) -> list[Table]:
    """Recall and mAP@R by shared product and by class, then by class of the query, then "is product X in this bin?"."""
    words = {"product": "shares a product", "label": "same class"}
    rows = []
    for name, of in report["by"].items():
        recalls = (_percent(of[key]) for key in _RECALLS)
        rows.append((words[name], str(of["queries"]), *recalls, _percent(of["chance@1"]), _number(of["scores"]["auc"])))
    among = f" among {report['gallery']}" if len(report["gallery_parts"]) > 1 else ""
    tables = [Table((f"of {report['n']} pictures{among}", "queries", *_RECALLS, "chance@1", "AUC"), tuple(rows))]
    per_class = tuple(
        (name, str(of["queries"]), *(_percent(of[key]) for key in _RECALLS)) for name, of in report["per_class"].items()
    )
    tables.append(Table(("query", "queries", *_RECALLS), per_class))
    if report["pairs"] is not None:
        asked = tuple(
            (name.replace("_", " "), str(of["questions"]), _percent(of["accuracy"]), _number(of["threshold"]))
            for name, of in report["pairs"].items()
            if isinstance(of, dict)
        )
        tables.append(Table(("is product X in this bin?", "questions", "accuracy", "threshold"), asked))
    return tables


def markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown; a cell cannot break out of its row."""
    blocks = []
    for table in tables:
        head = [table.columns, ("---", *("---:" for _ in table.columns[1:]))]
        rows = [tuple(_cell(cell) for cell in row) for row in table.rows]
        blocks.append("\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows)))
    return "\n\n".join(blocks) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _range(report: Figures) -> str:
    return f"0–{report['up_to']}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _bounds(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3f} … {pair[1]:.3f}"
