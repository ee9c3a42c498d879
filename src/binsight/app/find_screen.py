"""*Find a part*: a photo in, the items that look like it out; a click on one shows its record, and what looks like that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from binsight.app.backend import Backend
from binsight.app.components import PRIVATE, QUIET, Updates, examples, photo, slider, spoken
from binsight.app.conditions import MOST_SHOWN, TESTS, choices_of
from binsight.app.crop_controls import CropControls
from binsight.app.markup import fields, said, table
from binsight.app.photo import Crop, read_photo
from binsight.app.surveys import Surveys
from binsight.app.thumbnails import shown_as
from binsight.app.wording import caption, match_rows, record_rows, said_of, said_of_like
from binsight.errors import UnknownItem
from binsight.records import Match
from binsight.search import above

_LINES = 3
_TO_RECORD = "() => document.getElementById('find-record').scrollIntoView({block: 'nearest', behavior: 'smooth'})"
_GONE = "what was found for this page is not kept any more; search again"
_ASK = "Take or choose a photo: what looks like it in the store is shown here."


class FindScreen:
    """The widgets of the tab, and what happens between them. opened: what fills its `outputs` when the page is loaded."""

    def __init__(self, backend: Backend, surveys: Surveys, pictures: Sequence[Path], min_score: float) -> None:
        self._backend, self._surveys = backend, surveys
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._photo = photo("Photo of the part", "find-photo")
                self._status = gr.HTML(said(_ASK), elem_id="find-said")
                self._crop = CropControls(self._photo, self._status, "find")
                self._build_choices(min_score)
                self._search = gr.Button("Find", variant="primary", elem_id="find-go")
            with gr.Column(scale=3, min_width=300):
                self._build_answers()
        examples(pictures, self._photo)
        self._connect()

    def _build_choices(self, min_score: float) -> None:
        with gr.Accordion("How many, how near, and which", open=False, elem_id="find-choices"):
            self._k = slider(1, MOST_SHOWN, 12, step=1, label="How many to show", elem_id="find-k")
            self._cut = slider(-1, 1, min_score, step=0.01, label="Score cut-off (1: the same picture)", elem_id="find-cut-off")
            self._lines = [self._build_line(number) for number in range(1, _LINES + 1)]
            self._typed = gr.Textbox(
                label="Or a filter in words",
                placeholder='quantity >= 2 and shelf in ("A1", "A2")',
                max_length=4000,
                elem_id="find-where",
            )

    def _build_line(self, number: int) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
        with gr.Row():
            name = gr.Dropdown(
                [],
                label=f"Field {number}",
                value=None,
                allow_custom_value=True,  # not all may be offered; and what a page was offered, a restarted app does not know
                min_width=90,
                elem_id=f"find-field-{number}",
            )
            test = gr.Dropdown(list(TESTS), label=f"Test {number}", value=TESTS[0], min_width=90, elem_id=f"find-test-{number}")
            values = gr.Dropdown(
                [],
                label=f"Value {number}",
                value=[],
                multiselect=True,
                allow_custom_value=True,
                min_width=120,
                elem_id=f"find-value-{number}",
            )
        return name, test, values

    def _build_answers(self) -> None:
        self._gallery = gr.Gallery(
            label="What looks like it", columns=4, object_fit="contain", height="auto", allow_preview=False, buttons=[],
            elem_id="find-matches",
        )  # fmt: skip
        self._shown = gr.State([])  # ids: a visitor's memory here is small
        self._chosen = gr.State(None)
        self._record = gr.HTML("", elem_id="find-record")
        self._like = gr.Button("More like this", visible=False, elem_id="find-like")
        with gr.Accordion("The same as a table", open=False, elem_id="find-table"):
            self._rows = gr.HTML("", elem_id="find-rows")

    def _connect(self) -> None:
        choices = [self._k, self._cut, self._typed, *(one for line in self._lines for one in line)]
        asked = [self._photo, *self._crop.edges, *choices]
        answers: list[Component] = [
            self._status,
            self._gallery,
            self._shown,
            self._chosen,
            self._record,
            self._like,
            self._rows,
        ]
        find = spoken(self._find, self._status, self._gallery, self._record, self._rows)
        shown_on: dict[str, Any] = PRIVATE | {"show_progress_on": self._gallery}
        gr.on([self._search.click, self._typed.submit], find, asked, answers, **shown_on)
        for event in self._crop.events:
            event.then(find, asked, answers, **shown_on)
        choose = spoken(self._choose, self._status)
        chosen = self._gallery.select(choose, self._shown, [self._status, self._chosen, self._record, self._like], **QUIET)
        chosen.then(None, js=_TO_RECORD, **QUIET)
        like = spoken(self._more_like, self._status, self._gallery)
        self._like.click(like, [self._chosen, *choices], answers, scroll_to_output=True, **shown_on)
        for number, (name, _, values) in enumerate(self._lines):
            offer = spoken(partial(self._offer_values, number), self._status)
            name.input(offer, name, [self._status, values], **QUIET)
        self.opened = spoken(self._offer, self._status)
        self.outputs = [self._status, *(line[0] for line in self._lines)]

    def _offer(self) -> Updates:
        """The fields that the store has now."""
        names = [one.name for one in self._surveys.current().fields]
        return {name: gr.Dropdown(choices=names) for name, _, _ in self._lines}

    def _offer_values(self, number: int, name: str | None) -> Updates:
        found = self._surveys.current().field_named(name or "")
        return {self._lines[number][2]: gr.Dropdown(choices=list(found.values) if found else [], value=[])}

    def _find(self, path: str | None, left: float, top: float, right: float, bottom: float, *choices: Any) -> Updates:
        if path is None:
            return self._answered(_ASK, [])
        survey = self._surveys.current()
        chosen = choices_of(survey, *choices)
        answer = self._backend.find(read_photo(path, Crop(left, top, right, bottom)), k=chosen.k, where=chosen.where)
        told = said_of(answer, min_score=chosen.min_score, where=chosen.where, total=survey.total)
        return self._answered(told, above(answer.matches, chosen.min_score))

    def _more_like(self, chosen_id: str | None, *choices: Any) -> Updates:
        if chosen_id is None:
            raise UnknownItem(_GONE)
        chosen = choices_of(self._surveys.current(), *choices)
        near = above(self._backend.like(chosen_id, k=chosen.k, where=chosen.where).matches, chosen.min_score)
        return self._answered(said_of_like(near, chosen_id), near)

    def _answered(self, told: str, matches: Sequence[Match]) -> Updates:
        survey = self._surveys.current()
        return {
            self._status: said(told),
            self._gallery: gr.Gallery([(shown_as(one.item), caption(one, survey)) for one in matches], selected_index=None),
            self._shown: [one.item.id for one in matches],
            self._chosen: None,
            self._record: "",
            self._like: gr.Button(visible=False),
            self._rows: table(("score", "id", "record"), match_rows(matches), "What looks like it"),
        }

    def _choose(self, shown: list[str], event: gr.SelectData) -> Updates:
        place = event.index
        if not isinstance(place, int) or not 0 <= place < len(shown):
            raise UnknownItem(_GONE)
        item = self._backend.item(shown[place])
        if item is None:
            raise UnknownItem(f"the store holds no item {shown[place]} any more")
        return {
            self._chosen: item.id,
            self._record: fields(record_rows(item), f"The record of {item.id}"),
            self._like: gr.Button(visible=True),
        }
