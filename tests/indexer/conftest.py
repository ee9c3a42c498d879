"""Fixtures of the tests of batch jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import paint
from tests.indexer.jobs import Done, done_with


@pytest.fixture
def done(capsys: pytest.CaptureFixture[str]) -> Done:
    return done_with(capsys)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Three pictures in two class folders."""
    for place, name in enumerate(("ram/a.png", "ram/b.png", "cpu/c.png")):
        paint(tmp_path / "parts" / name, (60 * place, 200 - 60 * place, 30))
    return tmp_path / "parts"
