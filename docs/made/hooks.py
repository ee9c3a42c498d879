"""What MkDocs calls while it builds: pages that are made from the program, the notebooks and files outside of `docs/`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for `docs.made` and `indexer`, which no wheel holds

from docs.made import commands, notebooks, reference  # noqa: E402
from indexer.cli import app as jobs  # noqa: E402

from binsight.cli.main import app  # noqa: E402

EXECUTED = ROOT / "build" / "notebooks"  # `make docs` runs them there


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the decisions into the navigation, oldest first."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert config.nav is not None
    config.nav.append({"Decisions": [f"adr/{name}" for name in decisions]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for uri, content in _made():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the tables that a page asks for."""
    return markdown.replace("<!-- metrics -->", reference.metrics_table())


def _made() -> Iterator[tuple[str, str | bytes]]:
    programs = {"binsight": app, "python -m indexer": jobs}
    yield "reference/commands.md", commands.page(programs)
    yield "reference/settings.md", reference.settings_page()
    yield "reference/http.md", reference.http_page()
    yield "reference/errors.md", reference.errors_page()
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    yield "how-to/batch-jobs.md", (ROOT / "indexer" / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = EXECUTED / path.name
        source = executed if executed.exists() else path
        text, pictures = notebooks.page(json.loads(source.read_text(encoding="utf-8")), path.stem)
        yield f"notebooks/{path.stem}.md", text
        for name, picture in pictures.items():
            yield f"notebooks/{name}", picture
