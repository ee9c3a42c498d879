"""The demonstration: a made-up warehouse is drawn, indexed, and searched with views that were not indexed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from binsight.data.warehouse import World, render
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, CannotBeDone
from binsight.ingest import ingest, list_sources
from binsight.paths import user_path
from binsight.records import Metadata
from binsight.search import Searcher
from binsight.sheet import SheetMatch, SheetRow, contact_sheet, html_page
from binsight.store import open_store

MODEL = "binsight:colour-layout"  # needs no weights; replaced once a trained model ships
_MARK = ".binsight-demo"
_SHOWN = 5  # matches on the sheet
Say = Callable[[str], None]
Kind = Literal["part", "bin"]


@dataclass(frozen=True, slots=True)
class Query:
    """A view that was not indexed, and what it shows."""

    path: Path
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demonstration measured: recall@1 is the share of queries whose nearest item shows the same thing."""

    folder: Path
    model: str
    indexed: int
    images_per_s: float
    queries: int
    a_query: Path  # one of them, to try by hand
    recall_at_1: dict[str, float]
    search_ms: float
    sheet: Path
    page: Path
    store: Path
    took_s: float

    def to_json(self) -> Metadata:
        return {
            "model": self.model,
            "indexed": self.indexed,
            "images_per_s": round(self.images_per_s, 1),
            "queries": self.queries,
            "a_query": str(self.a_query),
            "recall_at_1": {name: round(value, 4) for name, value in self.recall_at_1.items()},
            "search_ms": round(self.search_ms, 3),
            "sheet": str(self.sheet),
            "page": str(self.page),
            "store": str(self.store),
            "took_s": round(self.took_s, 2),
        }


def run(folder: Path, *, seed: int = 0, bins: int = 60, views: int = 3, say: Say = lambda _: None) -> DemoReport:
    """Draw, index, search and report into a new folder, or over an earlier demonstration.

    Raises BadSettings when the folder holds something else, CannotBeDone when it cannot be written.
    """
    if seed < 0:
        raise BadSettings(f"want a seed of at least 0, got {seed}")
    folder = user_path(folder, error=BadSettings)
    try:
        return _run(folder, seed, bins, views, say)
    except OSError as error:
        why = error.strerror or error
        raise CannotBeDone(f"cannot write the demonstration to {folder}: {why}; choose another with --out") from error


def _run(folder: Path, seed: int, bins: int, views: int, say: Say) -> DemoReport:
    started = perf_counter()
    _clear(folder)
    say("drawing a small warehouse …")
    world = render(folder, bins=bins, views=views, seed=seed)
    say(f"indexing {world.indexed} pictures of {len(world.parts)} parts and {len(world.bins)} bins with {MODEL} …")
    encoder = load_encoder(MODEL)
    with open_store(folder / "demo.store", create=encoder.info) as store:
        report = ingest(list_sources([str(world.manifest)]), encoder, store)
        say(f"searching with {world.asked} views that were not indexed …")
        rows, kinds, times = _asked(world, Searcher(encoder, store))
    recall = {kind: _share(rows, kinds, kind) for kind in ("part", "bin")}
    recall["all"] = _share(rows, kinds, None)
    search_ms = sorted(times)[len(times) // 2]
    facts = [
        ("model", "colour-layout: nothing learned"),
        ("pictures indexed", f"{report.indexed} ({report.images_per_s:.0f} a second)"),
        ("queries", f"{len(rows)} views that were not indexed"),
        ("recall@1", f"{recall['all']:.1%} (parts {recall['part']:.1%}, bins {recall['bin']:.1%})"),
        ("a search", f"{search_ms:.1f} ms"),
    ]
    shown = _sample(rows, kinds)
    sheet = contact_sheet(shown, folder / "matches.png", title="binsight demo: what is it?", facts=facts)
    page = html_page(rows, folder / "matches.html", title="binsight demo: what is it?", facts=facts)
    return DemoReport(
        folder, MODEL, report.indexed, report.images_per_s, len(rows), _queries(world)[0].path, recall, search_ms, sheet, page,
        folder / "demo.store", perf_counter() - started,
    )  # fmt: skip


def _clear(folder: Path) -> None:
    """Make the folder, and take away what an earlier demonstration left in it, and nothing else."""
    mark = folder / _MARK
    if folder.exists() and not folder.is_dir():
        raise BadSettings(f"want a folder for the demonstration, but {folder} is none; choose another with --out")
    if not mark.exists() and folder.is_dir() and any(folder.iterdir()):
        raise BadSettings(f"want a new folder for the demonstration, but {folder} holds something; choose another with --out")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("warehouse", "queries", "changes", "demo.store"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    mark.write_text("made by `binsight demo`; the next one may overwrite it\n")


def _queries(world: World) -> list[Query]:
    with world.queries.open(newline="", encoding="utf-8") as file:
        return [Query(world.queries.parent / row["path"], row["label"], row["kind"]) for row in csv.DictReader(file)]


def _asked(world: World, searcher: Searcher) -> tuple[list[SheetRow], list[str], list[float]]:
    rows, kinds, times = [], [], []
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
        took = found.encode_ms + found.search_ms
        rows.append(SheetRow(query.path, query.label, matches, took))
        kinds.append(query.kind)
        times.append(took)
    return rows, kinds, times


def _share(rows: Sequence[SheetRow], kinds: Sequence[str], kind: str | None) -> float:
    """Recall@1 of the queries of one kind, or of all."""
    first = [row.matches[0].is_right for row, its in zip(rows, kinds, strict=True) if kind in (None, its) and row.matches]
    return sum(map(bool, first)) / len(first) if first else 0.0


def _sample(rows: Sequence[SheetRow], kinds: Sequence[str], each: int = 4) -> list[SheetRow]:
    """Some parts and some bins, evenly taken, for the sheet."""
    shown: list[SheetRow] = []
    for kind in ("part", "bin"):
        ours = [row for row, its in zip(rows, kinds, strict=True) if its == kind]
        shown += [ours[len(ours) * place // each] for place in range(min(each, len(ours)))]
    return shown
