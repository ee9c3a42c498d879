"""*Check many*: photos with a manifest in; a table out that begins where photo and books disagree most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import gradio as gr
from gradio.components import Component

from binsight.app.backend import Backend
from binsight.app.bundle import Upload, open_bundle
from binsight.app.checking import COLUMNS, Checked, by_disagreement, checked, csv_text, quantity_column, said_of_check
from binsight.app.components import PRIVATE, QUIET, Updates, files, spoken
from binsight.app.markup import said, table
from binsight.app.photo import read_photo
from binsight.app.thumbnails import Thumbnail, small
from binsight.app.visitors import Visitors
from binsight.data.source import Refusal
from binsight.records import Count

MOST_PICTURES = 60  # of the worst, shown
_ASK = (
    "Send a zip archive, or the files themselves: photos, and one manifest (.csv or .jsonl) with a path and the recorded "
    "quantity of each."
)
_STOPPED = "Stopped: nothing is being checked now. Press Check to begin anew."


class CheckScreen:
    """The widgets of the tab, and what happens between them.

    shown: a folder of what visitors may load, for the table. work: one of what they may not, to unpack in.
    """

    def __init__(self, backend: Backend, visitors: Visitors, shown: Path, work: Path) -> None:
        self._backend, self._visitors, self._shown, self._work = backend, visitors, shown, work
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._files = files("A zip archive, or photos and their manifest", "check-files")
                self._folder = files("Or a folder", "check-folder", folder=True)
                self._column = gr.Textbox(
                    label="Name of the column with the recorded quantity", placeholder="quantity, count, …", max_length=200,
                    elem_id="check-column",
                )  # fmt: skip
                with gr.Row():
                    self._go = gr.Button("Check", variant="primary", min_width=120, elem_id="check-go")
                    self._end = gr.Button("Stop", min_width=120, elem_id="check-stop")
            with gr.Column(scale=3, min_width=560):  # beneath, where the table has no room beside
                self._status = gr.HTML(said(_ASK), elem_id="check-said")
                self._rows = gr.HTML("", elem_id="check-rows")
                self._download = gr.DownloadButton("Download the table (CSV)", visible=False, elem_id="check-csv")
                self._gallery = gr.Gallery(
                    label="The photos, in the same order", columns=4, object_fit="contain", height="auto", visible=False,
                    buttons=[], elem_id="check-photos",
                )  # fmt: skip
        answers: list[Component] = [self._status, self._rows, self._download, self._gallery]
        check, again = spoken(self._check, *answers), spoken(self._check_either, *answers)
        one_by_one: dict[str, Any] = PRIVATE | {"show_progress_on": self._status, "concurrency_limit": 1}
        running: list[dict[str, Any]] = [
            self._files.upload(check, [self._files, self._column], answers, **one_by_one),
            self._folder.upload(check, [self._folder, self._column], answers, **one_by_one),
            self._go.click(again, [self._files, self._folder, self._column], answers, **one_by_one),
        ]
        self._end.click(self._stop, None, [self._status], cancels=running, **QUIET)

    def _check_either(
        self,
        sent: list[Upload],
        folder: list[Upload],
        column: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, how Gradio is asked for one
    ) -> Updates:
        return self._check(sent or folder, column, request, progress) if sent or folder else {self._status: said(_ASK)}

    def _check(
        self,
        sent: list[Upload],
        column: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        go_on = self._visitors.work_for(request.session_hash)
        with TemporaryDirectory(dir=self._work) as into:
            listing = open_bundle(sent, Path(into))
            name = quantity_column(listing.pictures, column or "")
            answers = []
            for answer in checked(listing.pictures, name, self._count):
                answers.append(answer)
                go_on()
                progress((len(answers), len(listing.pictures)), desc="counting", unit="photos")
            found = by_disagreement(one for one in answers if isinstance(one, Checked))
            refused = [*listing.refused, *(one for one in answers if isinstance(one, Refusal))]
            pictures = [
                (small(one.path), f"{one.id}: recorded {one.recorded}, seen {one.seen}") for one in found[:MOST_PICTURES]
            ]
        return self._answered(found, refused, pictures)

    def _stop(self, request: gr.Request) -> Updates:
        """Gradio takes back what waits, and drops the answer of what runs; that ends after the photo that it is at."""
        self._visitors.stop(request.session_hash)
        return {self._status: said(_STOPPED)}

    def _count(self, path: str) -> Count:
        return self._backend.count(read_photo(path))

    def _answered(self, found: Sequence[Checked], refused: Sequence[Refusal], pictures: list[tuple[Thumbnail, str]]) -> Updates:
        file = Path(mkdtemp(dir=self._shown, prefix="table-")) / "disagreement.csv"
        file.write_text(csv_text(found, refused), encoding="utf-8")
        return {
            self._status: said(said_of_check(found, refused)),
            self._rows: table(COLUMNS, [one.row for one in found], "Photo against books, the largest disagreement first"),
            self._download: gr.DownloadButton(value=str(file), visible=True),
            self._gallery: gr.Gallery(pictures, visible=bool(pictures)),
        }
