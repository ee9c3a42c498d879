"""Choosing a part of a photo: a tap closes in on what was tapped, sliders do the same by keyboard."""

from __future__ import annotations

import gradio as gr

from binsight.app.components import QUIET, Updates, slider, spoken
from binsight.app.photo import Crop, around, read_photo, size_of, tapped
from binsight.app.thumbnails import small

_EDGES = (("Left edge, %", 0), ("Top edge, %", 0), ("Right edge, %", 100), ("Bottom edge, %", 100))


class CropControls:
    """Sliders for the edges, and a view of what they leave.

    events: another photo, a tap, the whole photo again; each with the edges set already, so that `then` may use them.
    """

    def __init__(self, photo: gr.Image, status: gr.HTML, name: str) -> None:
        with gr.Accordion("Crop: tap the part, or move the edges", open=False, elem_id=f"{name}-crop"):
            self.edges = [
                slider(0, 100, value, step=0.1, label=label, elem_id=f"{name}-edge-{number}")
                for number, (label, value) in enumerate(_EDGES)
            ]
            whole = gr.Button("The whole photo", size="sm", elem_id=f"{name}-whole")
        self._view = gr.Image(
            label="What is looked at", visible=False, interactive=False, height=160, buttons=[], elem_id=f"{name}-view"
        )
        given, changed = [photo, *self.edges], [status, self._view, *self.edges]
        self.events = [
            photo.change(self._reset, None, changed, **QUIET),
            photo.select(spoken(self._close_in, status), given, changed, **QUIET),
            whole.click(self._reset, None, changed, **QUIET),
        ]
        for edge in self.edges:
            edge.release(spoken(self._show, status), given, changed, **QUIET)

    def _reset(self) -> Updates:
        return self._moved(Crop()) | {self._view: gr.Image(value=None, visible=False)}

    def _close_in(
        self, path: str | None, left: float, top: float, right: float, bottom: float, event: gr.SelectData
    ) -> Updates:
        if path is None:
            return {}
        width, height = size_of(path)
        x, y = tapped(event.index)
        closer = around(x / width, y / height, Crop(left, top, right, bottom))
        return self._moved(closer) | self._seen(path, closer)

    def _show(self, path: str | None, left: float, top: float, right: float, bottom: float) -> Updates:
        return {} if path is None else self._seen(path, Crop(left, top, right, bottom))

    def _seen(self, path: str, crop: Crop) -> Updates:
        return {self._view: gr.Image(value=small(read_photo(path, crop)), visible=not crop.is_whole)}

    def _moved(self, crop: Crop) -> Updates:
        return dict(zip(self.edges, (crop.left, crop.top, crop.right, crop.bottom), strict=True))
