"""Run notebooks from start to end: `python notebooks/run.py OUT NOTEBOOK...` writes executed copies into OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TIMEOUT_S = 1800  # a cell, on real data


def run(notebook: Path, out: Path) -> Path:
    """The executed copy. Raises nbclient's CellExecutionError when a cell raises."""
    document = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    place = {"metadata": {"path": str(notebook.parent)}}
    client = NotebookClient(document, timeout=TIMEOUT_S, resources=place)
    client.execute()
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(document, out / notebook.name)  # type: ignore[no-untyped-call]
    return out / notebook.name


if __name__ == "__main__":
    for name in sys.argv[2:]:
        run(Path(name), Path(sys.argv[1]))
