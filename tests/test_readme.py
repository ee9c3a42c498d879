"""README names only what is there; what it tells its reader to type is run by `tests/docs/test_pages.py`."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_figure_has_its_command() -> None:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("## Figures") : text.index("## For its developers")]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 12
    for row in rows:
        command = re.search(r"`(python -m bench\.\w+)", row) or re.search(r"`(make \w+)", row)
        assert command, row
        if command[1].startswith("python"):
            assert (ROOT / "bench" / f"{command[1].split('.')[1]}.py").exists(), row
