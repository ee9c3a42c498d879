"""The documentation site, as `make docs` builds it: without a warning, and with nothing loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
import yaml
from docs.made import commands, docstrings
from indexer.cli import app as jobs

import binsight
from binsight import errors
from binsight.api.metrics import Metrics
from binsight.cli.main import app
from binsight.settings import Settings
from tests.conftest import ROOT

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Resources(HTMLParser):
    """What a browser loads for a page by itself; a link that is clicked is none of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next", "alternate"):
            return
        if tag in LOADED and (url := given.get(LOADED[tag])):
            self.urls.append(url)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_it_is_built_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    found = list(site.rglob("*.html"))
    assert len(found) >= 35
    for path in found:
        for url in Resources(path.read_text(encoding="utf-8")).urls:
            assert not re.match(r"(https?:)?//", url), (path, url)
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


def test_every_page_that_is_made_is_there(site: Path) -> None:
    for name, text in {
        "reference/commands": "store reembed",
        "reference/settings": "BINSIGHT_API_KEYS",
        "reference/http": "/v1/inspect",
        "reference/errors": "ModelMismatch",
        "reference/python": "calibrated interval",
        "how-to/batch-jobs": "Job arrays",
        "notebooks/03_search": "Where to cut off",
        "operations": "binsight_batch_pictures",
        "changelog": "What changed",
    }.items():
        assert text in (site / name / "index.html").read_text(encoding="utf-8"), name


def test_commands_and_options_are_those_of_the_programs() -> None:
    text = commands.page({"binsight": app, "python -m indexer": jobs})
    assert "## binsight store copy" in text
    assert "binsight store copy FROM TO [OPTIONS]" in text
    assert "| `--epochs N` | Passes over the training pictures. | `20` |" in text
    assert "| `--pretrained, --no-pretrained` |" in text
    assert "| `--store URL` | The store to search in. | must be given |" in text
    assert "## python -m indexer load" in text


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^::: binsight\.\S+\.(\w+)$", text, re.MULTILINE))
    records = re.search(r"members: \[(Item[^]]*)\]", text)
    assert records
    assert set(binsight.__all__) - {"__version__", "errors"} <= told | set(records[1].split(", "))


def test_every_setting_and_error_that_pages_name_is_there() -> None:
    settings = {f"BINSIGHT_{name.upper()}" for name in Settings.model_fields}
    settings |= {"BINSIGHT_CACHE", "BINSIGHT_DATA", "BINSIGHT_WEIGHTS", "BINSIGHT_REDIS"}
    options = [option for command in typer.main.get_group(app).commands.values() for option in command.params]
    settings |= {str(option.envvar) for option in options if option.envvar}
    for path in (ROOT / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\bBINSIGHT_[A-Z_]+[A-Z]\b", text)) <= settings, path
        for name in re.findall(r"`(Store[A-Z]\w+|Bad[A-Z]\w+|Model[A-Z]\w+)`", text):
            assert hasattr(errors, name), (path, name)


def test_alerts_ask_for_metrics_that_are_there() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rules = yaml.safe_load(block)["groups"][0]["rules"]
    told = Metrics()
    told.request("GET", "/v1/search", 200, 0.1)
    told.watch("pictures", lambda: 0)
    names = set(re.findall(r"^(\w+)[{ ]", told.text().decode(), re.MULTILINE))
    asked = {name for rule in rules for name in re.findall(r"\bbinsight_\w+", rule["expr"])}
    assert len(asked) >= 4
    assert asked <= names


def test_examples_in_docstrings_are_fenced() -> None:
    assert docstrings.fenced("First.\n\n>>> 1 + 1\n2\n\nLast.") == "First.\n\n```python\n>>> 1 + 1\n2\n```\n\nLast."
