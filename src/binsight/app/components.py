"""Gradio's components as our screens use them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.components import Component
from gradio.data_classes import FileData, ImageData, ListFiles

from binsight.app.bundle import Upload
from binsight.app.markup import failed
from binsight.app.wording import sentence_of
from binsight.errors import BinsightError

Updates = dict[Any, Any]  # component: its new value, as Gradio takes them
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # of an event: no API of its own
QUIET: dict[str, Any] = PRIVATE | {"show_progress": "hidden"}


def photo(label: str, elem_id: str) -> gr.Image:
    """Where a photo is chosen, pasted or taken; handlers are given the path of its file.

    Gradio's own would open it with Pillow first; a visitor's bytes reach no decoder but `images`. No subclass, since beside the
    source of each Gradio writes a file of stubs. So handlers may give it a value, but no other property: for that Gradio makes
    a new one, which opens.
    """
    sources: list[Literal["upload", "webcam", "clipboard"]] = ["upload", "webcam", "clipboard"]
    back = gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": {"ideal": "environment"}}})
    made = gr.Image(label=label, type="filepath", sources=sources, height=300, webcam_options=back, elem_id=elem_id)
    made.preprocess = _path_of  # type: ignore[method-assign]
    return made


def slider(least: float, most: float, value: float, *, step: float, label: str, elem_id: str) -> gr.Slider:
    """A number; handlers are given whatever came, and say in a sentence what is wrong with it. Gradio's own would only show
    "Error" for a box that was emptied."""
    made = gr.Slider(least, most, value=value, step=step, label=label, elem_id=elem_id)
    made.preprocess = _as_it_is  # type: ignore[method-assign]
    return made


def files(label: str, elem_id: str, *, folder: bool = False) -> gr.File:
    """Where several files are chosen, or a folder; handlers are given a list of `Upload`, and none was opened."""
    made = gr.File(label=label, file_count="directory" if folder else "multiple", height=160, elem_id=elem_id)
    made.preprocess = _uploads_of  # type: ignore[assignment, method-assign]
    return made


def examples(paths: Sequence[Path], into: gr.Image) -> None:
    """Pictures to try; a click puts one where a photo is chosen. Not gr.Examples, which would set its properties, too."""
    shown = gr.Dataset(components=[into], samples=[[str(path)] for path in paths], type="index", label="Try one of these")
    shown.click(lambda index: {into: str(paths[index % len(paths)])}, shown, [into], **QUIET)


def _as_it_is(payload: Any) -> Any:  # what a browser sends
    return payload


def _path_of(payload: ImageData | None) -> str | None:
    return payload.path if payload is not None else None


def _uploads_of(payload: ListFiles | FileData | None) -> list[Upload]:
    found = [] if payload is None else payload.root if isinstance(payload, ListFiles) else [payload]
    return [Upload(Path(file.path), file.orig_name or Path(file.path).name) for file in found]


def spoken(act: Callable[..., Updates], status: Component, *emptied: Component) -> Callable[..., Updates]:
    """The same handler; what it raises becomes a sentence in `status`, and `emptied` lose what they showed before."""

    @functools.wraps(act)
    def run(*arguments: Any) -> Updates:  # what Gradio hands over
        try:
            return act(*arguments)
        except (BinsightError, OSError) as error:
            return {status: failed(sentence_of(error))} | dict.fromkeys(emptied)

    return run
