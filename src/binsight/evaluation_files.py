"""What is kept of an evaluation in a folder: JSON, tables, every answer as CSV, plots, and the worst mistakes as pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from binsight import evaluation_plots as plots
from binsight import vectors
from binsight.data.labelled import LabelledPicture, LabelledSet
from binsight.errors import BadImage, BadSettings, CannotBeDone
from binsight.evaluate_count import ranged
from binsight.evaluate_retrieval import Relevance, retrieve, same_label, shared_product
from binsight.evaluation import Judged
from binsight.evaluation_page import Mistake, mistakes_page
from binsight.evaluation_tables import Table, count_tables, label_tables, markdown, retrieval_tables
from binsight.sheet import Facts, SheetMatch, SheetRow, html_page

WORST = 60  # mistakes shown
WORST_QUERIES, MATCHES = 24, 6


def prepare(out: Path) -> Path:
    """The folder, made when it is not there. Raises MissingExtra without matplotlib, BadSettings when it is a file."""
    plots.check_installed()
    if out.exists() and not out.is_dir():
        raise BadSettings(f"want a folder for --out, got the file {out}")
    with _told(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


def write_counts(judged: Judged, labelled: LabelledSet, out: Path) -> list[Path]:
    """count.json, .md, .csv, plots, and count-mistakes.html: farthest off first. Raises CannotBeDone when it cannot write."""
    report, pictures, counts = judged.report, judged.pictures, judged.encoded.counts or []
    names = list(report["per_class"])
    inside = [place for place, one in enumerate(pictures) if one.count is not None and one.count <= report["up_to"]]
    answers = ranged([counts[place] for place in inside], report["up_to"])
    true = np.array([pictures[place].count for place in inside])
    off = np.abs(answers.values - true)
    own = answers.probabilities[np.arange(len(inside)), true]
    worst = [row for row in np.lexsort((own, -off)).tolist() if off[row]][:WORST]
    rows = [
        (one.uri, one.count, count.value, f"{count.expected:.4f}", count.low, count.high, f"{count.more:.4f}")
        for one, count in zip(pictures, counts, strict=True)
    ]
    with _told(out):
        files = _texts(judged, out, "count", count_tables(report))
        files.append(_csv(out / "count.csv", ("path", "count", "value", "expected", "low", "high", "more"), rows))
        files.append(
            plots.confusion(report["confusion"], names, out / "count-confusion.png", title="counts: true and answered")
        )
        constant = ("best constant", report["constant"]["accuracy"])
        accuracies = [of["accuracy"] for of in report["per_class"].values()]
        files.append(
            plots.bars(names, accuracies, out / "count-classes.png", title="accuracy by count", label="", line=constant)
        )
        files.append(plots.calibration(report["reliability"], out / "count-calibration.png", title="calibration of counts"))
        with _pictures(labelled, [pictures[inside[row]] for row in worst]) as paths:
            mistakes = [
                Mistake(
                    path,
                    f"holds {true[row]}",
                    f"answered {answers.values[row]} (mean {answers.means[row]:.1f})",
                    (f"P({true[row]}) = {own[row]:.1%}", _interval(judged, inside[row]), pictures[inside[row]].uri),
                )
                for row, path in zip(worst, paths, strict=True)
            ]
            files.append(mistakes_page(mistakes, out / "count-mistakes.html", title="The worst counts", facts=_facts(judged)))
    return files


def write_labels(judged: Judged, labelled: LabelledSet, out: Path) -> list[Path]:
    """labels.json, .md, .csv, plots, and labels-mistakes.html: most certain first. As `write_counts`."""
    report, pictures, answers = judged.report, judged.pictures, judged.encoded.labels or []
    names = report["classes"]
    rows = [(one.uri, one.label, *said[0]) for one, said in zip(pictures, answers, strict=True)]
    wrong = [place for place, one in enumerate(pictures) if one.label != answers[place][0][0]]
    worst = sorted(wrong, key=lambda place: -answers[place][0][1])[:WORST]
    with _told(out):
        files = _texts(judged, out, "labels", label_tables(report))
        files.append(_csv(out / "labels.csv", ("path", "label", "answer", "probability"), rows))
        files.append(
            plots.confusion(report["confusion"], names, out / "labels-confusion.png", title="classes: true and answered")
        )
        constant = ("best constant", report["constant"]["top_1"])
        shares = [of["top_1"] for of in report["per_class"].values()]
        files.append(plots.bars(names, shares, out / "labels-classes.png", title="top-1 by class", label="", line=constant))
        files.append(plots.calibration(report["reliability"], out / "labels-calibration.png", title="calibration of classes"))
        with _pictures(labelled, [pictures[place] for place in worst]) as paths:
            mistakes = [
                Mistake(
                    path,
                    f"is {pictures[place].label}",
                    f"answered {answers[place][0][0]} ({answers[place][0][1]:.1%})",
                    (pictures[place].uri,),
                )
                for place, path in zip(worst, paths, strict=True)
            ]
            files.append(mistakes_page(mistakes, out / "labels-mistakes.html", title="The worst classes", facts=_facts(judged)))
    return files


def write_retrieval(judged: Judged, labelled: LabelledSet, out: Path) -> list[Path]:
    """retrieval.json, .md, .csv, plots, and retrieval-mistakes.html: whose first relevant one ranks last. As `write_counts`."""
    report, pictures = judged.report, judged.pictures
    queries = report["n"]
    found = retrieve(judged.encoded.vectors, _relevance(judged), queries=queries)
    asked = np.flatnonzero(found.is_query & (found.first > 1))
    worst = asked[np.argsort(-found.first[asked], kind="stable")][:WORST_QUERIES]
    with _told(out):
        files = _texts(judged, out, "retrieval", retrieval_tables(report))
        rows = zip(pictures, found.relevant.tolist(), found.first.tolist(), found.precision.tolist(), strict=True)
        table = [
            (one.uri, relevant, first or "", f"{precision:.4f}") for one, relevant, first, precision in islice(rows, queries)
        ]
        files.append(_csv(out / "retrieval.csv", ("path", "relevant", "first_rank", "map@r"), table))
        for name, of in report["by"].items():
            title = f"scores of pictures of the same {name} and of others"
            files.append(plots.scores(of["scores"], out / f"retrieval-scores-{name}.png", title=title))
        names, recalls = list(report["per_class"]), [of["recall@1"] for of in report["per_class"].values()]
        line = ("all", report["recall@1"]) if report["recall@1"] is not None else None
        path = out / "retrieval-classes.png"
        files.append(plots.bars(names, recalls, path, title="recall@1 by class of the query", label="", line=line))
        files.append(_retrieval_page(judged, labelled, worst.tolist(), out / "retrieval-mistakes.html"))
    return files


def _retrieval_page(judged: Judged, labelled: LabelledSet, queries: Sequence[int], path: Path) -> Path:
    pictures, rows = judged.pictures, judged.encoded.vectors
    scores = vectors.score(rows[list(queries)], rows)  # (q, n)
    scores[np.arange(len(queries)), list(queries)] = -np.inf
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, : min(MATCHES, len(rows) - 1)]
    shown = sorted({*queries, *nearest.ravel().tolist()})
    is_relevant = _relevance(judged)(np.asarray(queries, np.int64)) if queries else np.empty((0, len(rows)), bool)
    with _pictures(labelled, [pictures[place] for place in shown]) as paths:
        path_of = dict(zip(shown, paths, strict=True))
        sheet = [
            SheetRow(
                path_of[query],
                _known(pictures[query]),
                [
                    SheetMatch(
                        path_of[place],
                        pictures[place].uri,
                        float(scores[row, place]),
                        _known(pictures[place]),
                        bool(is_relevant[row, place]),
                    )
                    for place in nearest[row].tolist()
                ],
                query_note=pictures[query].uri,
            )
            for row, query in enumerate(queries)
        ]
        return html_page(sheet, path, title="The worst searches", facts=_facts(judged))


def _relevance(judged: Judged) -> Relevance:
    if judged.report["relevance"] == "product":
        return shared_product([one.products for one in judged.pictures])
    return same_label([one.label if one.label is not None else f"\0{place}" for place, one in enumerate(judged.pictures)])


def _known(picture: LabelledPicture) -> str:
    words = [picture.label or "", f"{picture.count} items" if picture.count is not None else "", " ".join(picture.products[:3])]
    return " · ".join(word for word in words if word)


def _interval(judged: Judged, place: int) -> str:
    count = (judged.encoded.counts or [])[place]
    return f"interval {count.low} … {'more' if count.high >= len(count.probabilities) else count.high}"


def _facts(judged: Judged) -> Facts:
    split = judged.report["split"]
    return [
        ("model", judged.report["model"]),
        ("pictures", f"{len(judged.pictures)} of {split['name']}, split by {split['by']}"),
    ]


def _texts(judged: Judged, out: Path, name: str, tables: Sequence[Table]) -> list[Path]:
    document, page = out / f"{name}.json", out / f"{name}.md"
    document.write_text(json.dumps(judged.report, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page.write_text(markdown(tables), encoding="utf-8")
    return [document, page]


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@contextmanager
def _pictures(labelled: LabelledSet, pictures: Sequence[LabelledPicture]) -> Iterator[list[Path | None]]:
    """The pictures as files for a while, wherever they are kept; None for one that cannot be read any more."""
    with TemporaryDirectory(prefix="binsight-") as folder:
        paths: list[Path | None] = []
        for place, picture in enumerate(pictures):
            path = Path(folder) / str(place)
            try:
                path.write_bytes(labelled.read(picture.uri))
            except BadImage:
                paths.append(None)
            else:
                paths.append(path)
        yield paths


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotBeDone(f"cannot write into {out}: {error.strerror or error}; free space or take another --out") from error
