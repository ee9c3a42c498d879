"""What docstrings show is what happens.

One test a module, which is loaded when its turn comes: pytest's own `--doctest-modules` would load all of them, Gradio and
Lightning too, in each process that runs tests.
"""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = ROOT / "src"
SHOWING = [
    path.relative_to(SOURCES)
    for path in sorted(SOURCES.rglob("*.py"))
    if re.search(r"^ *>>> [^#]", path.read_text(encoding="utf-8"), re.MULTILINE)
]


def test_there_are_some() -> None:
    assert len(SHOWING) >= 30


@pytest.mark.parametrize("path", SHOWING, ids=str)
def test_what_a_docstring_shows_happens(path: Path) -> None:
    module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
