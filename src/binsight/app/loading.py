"""Gradio, loaded in half of the time: without the stubs for editors that it writes beside its own source."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def load_gradio() -> None:
    """Import it, before anything else of it is.

    Each import of it parses the source of each of its classes of components to write stubs beside it, into the installed
    packages, but not of one that comes from no file. Raises ImportError.
    """
    with _its_classes_from_no_file():
        import gradio  # noqa: F401


@contextmanager
def _its_classes_from_no_file() -> Iterator[None]:
    find = inspect.getfile

    def but_gradios(object: Any) -> str:  # as inspect names it
        if isinstance(object, type) and object.__module__.partition(".")[0] == "gradio":
            raise OSError(f"no stubs of {object.__name__} are wanted")
        return find(object)

    inspect.getfile = but_gradios
    try:
        yield
    finally:
        inspect.getfile = find
