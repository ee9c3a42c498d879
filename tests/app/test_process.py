"""`binsight app` as a process: from a store, from a running API, and how it ends."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import httpx
import pytest

from binsight.cli import run
from tests.api.servers import Process
from tests.app.processes import started
from tests.conftest import ROOT
from tests.fakes import paint

MODEL = "binsight:colour-layout"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    paint(folder / "photos/red/a.png", (200, 30, 30), (64, 48))
    assert run(["index", str(folder / "photos"), "--store", str(folder / "parts.store"), "--model", MODEL]) == 0
    return folder / "parts.store"


def test_it_shows_a_store_until_it_is_told_to_end_and_leaves_nothing_behind(
    store: Path, shared_cache: Path, tmp_path: Path
) -> None:
    with started("--store", store, cache=shared_cache, TMPDIR=str(tmp_path)) as (process, url, errors):
        assert "binsight" in httpx.get(url, timeout=60).text
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert errors.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_it_shows_what_a_server_holds(store: Path, shared_cache: Path) -> None:
    with (
        Process("--store", store, "--model", MODEL, "--read-only", cache=shared_cache) as api,
        started("--api", api.url, cache=shared_cache, program=ROOT / "gradio_app.py") as (process, url, _),
    ):
        assert "binsight" in httpx.get(url, timeout=60).text
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "want either --store URL, to answer from a store here, or --api URL"),
        (("--store", "a", "--api", "http://127.0.0.1:1"), 2, "want either --store URL"),
        (("--api", "http://127.0.0.1:1", "--model", "m"), 2, "--model goes with --store"),
        (("--store", "gone.store"), 2, "gone.store"),
        (("--store", "a", "--host", "::"), 2, "without a password the app listens on 127.0.0.1 only"),
        (("--api", "http://127.0.0.1:1", "--port", "0"), 3, "cannot be reached"),
    ],
)
def test_what_keeps_it_from_starting_is_told(
    arguments: tuple[str, ...],
    code: int,
    told: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["app", *arguments]) == code
    assert told in capfd.readouterr().err


def test_readmes_commands_start_it(store: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## The app") :]
    block = section[section.index("```sh\n") + 6 : section.index("\n```\n")]
    commands = [shlex.split(line, comments=True) for line in block.splitlines() if line.startswith("binsight app")]
    assert len(commands) == 2
    monkeypatch.chdir(store.parent)
    with started(*commands[0][2:], cache=shared_cache) as (_, url, _):
        assert "binsight" in httpx.get(url, timeout=60).text
    assert commands[1][2] == "--api"
