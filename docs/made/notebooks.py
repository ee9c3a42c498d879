"""Notebooks as pages: their text, their code, and what an executed copy shows."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]  # JSON, https://nbformat.readthedocs.io
_HERE = {f"{Path(__file__).resolve().parents[2]}/": "", f"{Path.home()}/": "~/"}  # of whoever makes the page, told to nobody


def page(notebook: Notebook, name: str) -> tuple[str, dict[str, bytes]]:
    """Markdown, and the pictures that it shows by their file names, which begin with `name`."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace(".ipynb)", ".md)"))
            continue
        parts.append(_fenced(source, "python"))
        parts += [_shown(output, name, pictures) for output in cell["outputs"]]
    if not any(cell.get("outputs") for cell in notebook["cells"]):
        parts.insert(1, "*Built without its pictures: `make docs` runs the notebooks first.*")
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def _shown(output: Notebook, name: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return _fenced(_unplaced(output["text"]).rstrip("\n"), "text")
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{name}-{len(pictures) + 1}.png"
        pictures[file] = base64.b64decode("".join(data["image/png"]))
        return f"![What the code above shows]({file})"
    return _fenced(_unplaced(data.get("text/plain", "")), "text")


def _unplaced(lines: Iterable[str]) -> str:
    text = "".join(lines)
    for path, shown in _HERE.items():
        text = text.replace(path, shown)
    return text


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text}\n````"
