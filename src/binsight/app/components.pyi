"""Gradio's components as our screens use them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from binsight.app.bundle import Upload
from binsight.app.markup import failed
from binsight.app.wording import sentence_of
from binsight.errors import BinsightError

Updates = dict[Any, Any]  # component: its new value, as Gradio takes them
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # of an event: no API of its own
QUIET: dict[str, Any] = PRIVATE | {"show_progress": "hidden"}

from gradio.events import Dependency

class Photo(gr.Image):
    """An upload, a paste or a camera's picture, handed over as the path of its file.

    Gradio's own would open it with Pillow first; a visitor's bytes reach no decoder but `images`.
    """

    is_template = True  # Gradio: shown by the component of the class above, whose constructor it must have

    def preprocess(self, payload: ImageData | None) -> str | None:
        return payload.path if payload is not None else None
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class PhotoFiles(gr.File):
    """Several uploads, handed over with the names that the visitor gave them; none is opened."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[Upload]:
        files = [] if payload is None else list(payload) if isinstance(payload, ListFiles) else [payload]
        return [Upload(Path(file.path), file.orig_name or Path(file.path).name) for file in files]
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def spoken(act: Callable[..., Updates], status: gr.HTML, *emptied: gr.components.Component) -> Callable[..., Updates]:
    """The same handler; what it raises becomes a sentence in `status`, and `emptied` lose what they showed before."""

    @functools.wraps(act)
    def run(*arguments: Any) -> Updates:  # what Gradio hands over
        try:
            return act(*arguments)
        except BinsightError as error:
            return {status: failed(sentence_of(error))} | dict.fromkeys(emptied)

    return run