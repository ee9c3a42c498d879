"""*The store*: how many items, which model, the newest, a random sample, and whether it is sound."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from binsight.app.backend import Backend
from binsight.app.components import PRIVATE, Updates, spoken
from binsight.app.markup import failed, fields, said
from binsight.app.surveys import Surveys
from binsight.app.thumbnails import Thumbnail, shown_as
from binsight.app.wording import said_of_survey, short_caption, store_rows
from binsight.records import Item


class StoreScreen:
    """The widgets of the tab, and what happens between them. opened: what fills its `outputs`."""

    def __init__(self, backend: Backend, surveys: Surveys) -> None:
        self._backend, self._surveys = backend, surveys
        with gr.Row():
            self._again = gr.Button("Look again", elem_id="store-again")
            self._verify = gr.Button("Check its health", elem_id="store-verify")
        self._status = gr.HTML("", elem_id="store-said")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._about = gr.HTML("", elem_id="store-about")
            with gr.Column(scale=3, min_width=300):
                self._newest = _gallery("The newest pictures", "store-newest")
                self._sample = _gallery("A random sample", "store-sample")
        self.outputs = [self._status, self._about, self._newest, self._sample]
        self.opened = spoken(self._look, self._status)
        self._again.click(self.opened, None, self.outputs, **PRIVATE)
        self._verify.click(spoken(self._check, self._status), None, self._status, **PRIVATE)

    def _look(self) -> Updates:
        survey, info = self._surveys.fresh(), self._backend.info()
        return {
            self._status: said(said_of_survey(survey)),
            self._about: fields(store_rows(info, self._backend.name), "About the store"),
            self._newest: _pictures(survey.newest),
            self._sample: _pictures(survey.sample),
        }

    def _check(self) -> Updates:
        health = self._backend.check()
        return {self._status: said(health.told) if health.is_sound else failed(health.told)}


def _gallery(label: str, name: str) -> gr.Gallery:
    return gr.Gallery(
        label=label, columns=4, object_fit="contain", height="auto", allow_preview=False, buttons=[], elem_id=name
    )


def _pictures(items: Sequence[Item]) -> list[tuple[Thumbnail, str]]:
    return [(shown_as(item), short_caption(item)) for item in items]
