"""The demonstration: a small network learns from drawn bins; a made-up warehouse is indexed, searched and counted with it.

The warehouse's bins are none of those that it learned from. The parts are the same ones, in other views.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from binsight.data.warehouse import MAX_COUNT, World, render
from binsight.demo_training import Drawing, Recipe, Trained, not_shown, train_demo_model
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, CannotBeDone
from binsight.evaluate import Figures
from binsight.evaluate_count import count_figures
from binsight.ingest import ingest, list_sources
from binsight.paths import user_path
from binsight.records import Count, Metadata
from binsight.search import Searcher
from binsight.sheet import SheetMatch, SheetRow, contact_sheet, html_page
from binsight.store import open_store

_MARK = ".binsight-demo"
_SHOWN = 5  # matches on the sheet
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Query:
    """A view that was not indexed, and what it shows."""

    path: Path
    label: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A query, its line on sheet and page, the network's count of it, and how long the answer took."""

    query: Query
    row: SheetRow
    count: Count
    took_ms: float


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demonstration measured.

    trained: the model that found and counted. recall_at_1: the share of queries whose nearest item shows the same thing.
    count: of the bins among the queries, as `evaluate_count.count_figures`, beside the best constant answer.
    """

    folder: Path
    trained: Trained
    indexed: int
    images_per_s: float
    queries: int
    a_bin: Path  # one of them, to try by hand; it learned to count in bins only
    recall_at_1: dict[str, float]
    count: Figures
    search_ms: float
    sheet: Path
    page: Path
    store: Path
    took_s: float

    def to_json(self) -> Metadata:
        return {
            "model": str(self.trained.model.folder),
            "training": self.trained.to_json(),
            "indexed": self.indexed,
            "images_per_s": round(self.images_per_s, 1),
            "queries": self.queries,
            "a_bin": str(self.a_bin),
            "recall_at_1": {name: round(value, 4) for name, value in self.recall_at_1.items()},
            "count": _told(self.count),
            "search_ms": round(self.search_ms, 3),
            "sheet": str(self.sheet),
            "page": str(self.page),
            "store": str(self.store),
            "took_s": round(self.took_s, 2),
        }


def run(
    folder: Path,
    *,
    seed: int = 0,
    bins: int = 60,
    views: int = 3,
    recipe: Recipe | None = None,
    say: Say = lambda _: None,
    drawing: Drawing = not_shown,
) -> DemoReport:
    """Draw, learn, index, search, count and report into a new folder, or over an earlier demonstration.

    bins, views: of the warehouse that is indexed. recipe: how much is drawn to learn from, and how often it is seen.
    drawing: shows, twice, how much is drawn, which takes most of the time.
    Raises BadSettings when the folder holds something else or a number is out of range, CannotBeDone when the folder
    cannot be written.
    """
    if seed < 0:
        raise BadSettings(f"want a seed of at least 0, got {seed}")
    if bins < 1 or views < 1:
        raise BadSettings(f"want at least 1 bin and 1 view to index, got {bins} and {views}")
    folder = user_path(folder, error=BadSettings)
    try:
        return _run(folder, seed, bins, views, recipe or Recipe(), say, drawing)
    except OSError as error:
        why = error.strerror or error
        raise CannotBeDone(f"cannot write the demonstration to {folder}: {why}; choose another with --out") from error


def _run(folder: Path, seed: int, bins: int, views: int, recipe: Recipe, say: Say, drawing: Drawing) -> DemoReport:
    started = perf_counter()
    _clear(folder)
    say("drawing a small warehouse …")
    with drawing() as progress:
        world = render(folder, bins=bins, views=views, seed=seed, progress=progress)
    trained = train_demo_model(folder / "model", seed=seed, recipe=recipe, say=say, drawing=drawing)
    say(f"indexing {world.indexed} pictures of {len(world.parts)} parts and {len(world.bins)} bins …")
    encoder = load_encoder(f"local-dir:{trained.model.folder}")
    encoder.warm_up()
    with open_store(folder / "demo.store", create=encoder.info) as store:
        report = ingest(list_sources([str(world.manifest)]), encoder, store)
        say(f"asking with {world.asked} views that were not indexed: what is it, and how many? …")
        answers = _asked(world, Searcher(encoder, store))
    recall = {"part": _share(answers, "part"), "bin": _share(answers, "bin"), "all": _share(answers, None)}
    count = _counted(answers, seed)
    search_ms = sorted(answer.took_ms for answer in answers)[len(answers) // 2]
    facts = [  # the sheet leaves out the first ones where it has no room
        ("pictures indexed", f"{report.indexed}, {views} of each ({report.images_per_s:.0f} a second)"),
        ("an answer", f"{search_ms:.1f} ms"),
        ("recall@1: parts, bins", f"{recall['part']:.1%}, {recall['bin']:.1%}"),
        ("counted right (constant)", f"{count['accuracy']:.0%} ({count['constant']['accuracy']:.0%})"),
        ("RMSE (constant)", f"{count['rmse_mean']:.2f} ({count['constant']['rmse_mean']:.2f})"),
        ("intervals: right, width", f"{count['coverage']:.0%}, {count['width']:.1f}"),
        ("learned; no photo", f"{trained.pictures} drawn pictures"),
    ]
    title = "binsight demo"
    sheet = contact_sheet(_sample(answers), folder / "matches.png", title=title, facts=facts)
    page = html_page([answer.row for answer in answers], folder / "matches.html", title=title, facts=facts)
    return DemoReport(
        folder, trained, report.indexed, report.images_per_s, len(answers), _a_bin(answers), recall, count,
        search_ms, sheet, page, folder / "demo.store", perf_counter() - started,
    )  # fmt: skip


def _clear(folder: Path) -> None:
    """Make the folder, and take away what an earlier demonstration left in it, and nothing else."""
    mark = folder / _MARK
    if folder.exists() and not folder.is_dir():
        raise BadSettings(f"want a folder for the demonstration, but {folder} is none; choose another with --out")
    if not mark.exists() and folder.is_dir() and any(folder.iterdir()):
        raise BadSettings(f"want a new folder for the demonstration, but {folder} holds something; choose another with --out")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("warehouse", "queries", "changes", "model", "demo.store"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    mark.write_text("made by `binsight demo`; the next one may overwrite it\n")


def _queries(world: World) -> list[Query]:
    home = world.queries.parent
    with world.queries.open(newline="", encoding="utf-8") as file:
        return [Query(home / row["path"], row["label"], row["kind"], int(row["count"])) for row in csv.DictReader(file)]


def _asked(world: World, searcher: Searcher) -> list[Answered]:
    answers = []
    pictures = world.manifest.parent
    for query in _queries(world):
        found = searcher.timed(query.path, k=_SHOWN)
        matches = [
            SheetMatch(
                pictures / match.item.metadata["path"],
                match.item.id,
                match.score,
                str(match.item.metadata["label"]),
                match.item.metadata["label"] == query.label,
                {name: value for name, value in match.item.metadata.items() if name not in ("_source", "path", "label")},
            )
            for match in found.answer.matches
        ]
        took, count = found.encode_ms + found.search_ms, found.answer.count
        assert count is not None  # the model has a count head
        note = _note(query.count, count) if query.kind == "bin" else ""  # it learned to count in bins only
        answers.append(Answered(query, SheetRow(query.path, query.label, matches, took, note), count, took))
    return answers


def _note(truth: int, count: Count) -> str:
    """What a bin holds, and what the network says: `holds 4, counted 4 (3 to 5)`."""
    high = f"{count.high}" if count.high < len(count.probabilities) else "more"
    interval = f"{count.low}" if count.low == count.high else f"{count.low} to {high}"
    return f"holds {truth}, counted {count.value} ({interval})"


def _counted(answers: Sequence[Answered], seed: int) -> Figures:
    bins = [answer for answer in answers if answer.query.kind == "bin"]
    truth, counts = [answer.query.count for answer in bins], [answer.count for answer in bins]
    return count_figures(truth, counts, generator=np.random.default_rng([seed, 11]), up_to=MAX_COUNT)


def _told(count: Figures) -> Metadata:
    """The count's figures that JSON tells: of the bins, beside the best constant answer, with bootstrap bounds."""
    bounds = {name: [round(value, 4) for value in count["bootstrap"][name]] for name in ("accuracy", "rmse_mean")}
    return {
        "bins": count["n"],
        **{name: round(count[name], 4) for name in ("accuracy", "rmse_mean", "coverage", "width")},
        "constant": {name: round(count["constant"][name], 4) for name in ("accuracy", "rmse_mean")},
        "bootstrap": {"level": count["bootstrap"]["level"], **bounds},
    }


def _a_bin(answers: Sequence[Answered]) -> Path:
    return next(answer.query.path for answer in answers if answer.query.kind == "bin")


def _share(answers: Sequence[Answered], kind: str | None) -> float:
    """Recall@1 of the queries of one kind, or of all."""
    first = [answer.row.matches[0].is_right for answer in answers if kind in (None, answer.query.kind) and answer.row.matches]
    return sum(map(bool, first)) / len(first) if first else 0.0


def _sample(answers: Sequence[Answered], each: int = 4) -> list[SheetRow]:
    """Parts and bins in turn, evenly taken, for the sheet."""
    kinds = [[answer.row for answer in answers if answer.query.kind == kind] for kind in ("part", "bin")]
    return [ours[len(ours) * place // each] for place in range(each) for ours in kinds if place < len(ours)]
