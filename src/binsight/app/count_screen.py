"""*Count a bin*: a photo in; how many items it shows, how sure that is, and whether the books agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from binsight.app.backend import Backend
from binsight.app.components import PRIVATE, Updates, examples, photo, spoken
from binsight.app.crop_controls import CropControls
from binsight.app.markup import bars, fields, said, verdict
from binsight.app.photo import Crop, read_photo
from binsight.app.surveys import Surveys
from binsight.app.wording import distribution, record_rows, said_of_books, said_of_count
from binsight.audit import checked_quantity, is_in_interval
from binsight.errors import UnknownItem
from binsight.records import Count, Item

_ASK = "Take or choose a photo of a bin: its items are counted here."


class CountScreen:
    """The widgets of the tab, and what happens between them."""

    def __init__(self, backend: Backend, surveys: Surveys, pictures: Sequence[Path]) -> None:
        self._backend, self._surveys = backend, surveys
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._photo = photo("Photo of the bin", "count-photo")
                self._status = gr.HTML(said(_ASK), elem_id="count-said")
                self._crop = CropControls(self._photo, self._status, "count")
                with gr.Row():
                    self._id = gr.Textbox(label="Its id in the store", max_length=512, min_width=120, elem_id="count-id")
                    self._recorded = gr.Textbox(  # gr.Number has no empty one: it says 0
                        label="Or the recorded quantity", max_length=9, min_width=120, elem_id="count-recorded"
                    )
                self._go = gr.Button("Count", variant="primary", elem_id="count-go")
            with gr.Column(scale=3, min_width=300):
                self._books = gr.HTML("", elem_id="count-books")
                self._plot = gr.HTML("", elem_id="count-plot")
                self._record = gr.HTML("", elem_id="count-record")
        examples(pictures, self._photo)
        self._connect()

    def _connect(self) -> None:
        asked = [self._photo, *self._crop.edges, self._id, self._recorded]
        answers: list[Component] = [self._status, self._books, self._plot, self._record]
        count = spoken(self._count, *answers)
        gr.on([self._go.click, self._id.submit, self._recorded.submit], count, asked, answers, **PRIVATE)
        for event in self._crop.events:
            event.then(count, asked, answers, **PRIVATE)

    def _count(self, path: str | None, left: float, top: float, right: float, bottom: float, *books: Any) -> Updates:
        if path is None:
            return {self._status: said(_ASK), self._books: "", self._plot: "", self._record: ""}
        item, recorded = self._recorded_of(*books)
        count = self._backend.count(read_photo(path, Crop(left, top, right, bottom)))
        return {
            self._status: said(said_of_count(count)),
            self._books: _compared(count, recorded),
            self._plot: _drawn(count, recorded),
            self._record: fields(record_rows(item), f"The record of {item.id}") if item else "",
        }

    def _recorded_of(self, item_id: str | None, typed: str | None) -> tuple[Item | None, int | None]:
        """The record, where an id was given, and the quantity: the one that was typed, else the record's."""
        told = item_id.strip() if item_id else ""
        item = self._backend.item(told) if told else None
        if told and item is None:
            raise UnknownItem(f"the store holds no item {told}")
        if typed and typed.strip():
            text = typed.strip()
            return item, checked_quantity(int(text) if text.isdecimal() else text)
        name = self._surveys.current().quantity_name
        value = item.metadata.get(name) if item is not None and name is not None else None
        return item, None if value is None else checked_quantity(value)


def _compared(count: Count, recorded: int | None) -> str:
    if recorded is None:
        return said("Give the bin's id or the recorded quantity, and whether they agree is told here.")
    return verdict(said_of_books(count, recorded), is_good=is_in_interval(count, recorded))


def _drawn(count: Count, recorded: int | None) -> str:
    """The distribution; the bar of what is recorded stands out."""
    rows = distribution(count)
    marked = None if recorded is None else min(recorded, len(rows) - 1)
    return bars(rows, "How likely the photo shows so many items", marked=marked, mark="in the books")
