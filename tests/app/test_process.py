"""`binsight app` as a process: from a store, from a running API, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from binsight.app.run import Source, make_server, open_backend
from binsight.cli import run
from binsight.errors import MissingExtra
from binsight.settings import Settings
from tests.api.servers import Process, web
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


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    """What README tells to type, without `binsight app`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## The app") :]
    block = section[section.index("```sh\n") + 6 : section.index("\n```\n")]
    return [shlex.split(line, comments=True)[2:] for line in block.splitlines() if line.startswith("binsight app")]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_shows_a_store_until_it_is_told_to_end_and_leaves_nothing_behind(
    store: Path, shared_cache: Path, tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    before = sorted(store.parent.rglob("*"))
    told = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    with started(*commands[0], "--min-score", "0.4", cache=shared_cache, told=told) as (process, url, errors):
        assert "binsight" in web.get(url, timeout=60).text
        shown = [one["props"] for one in web.get(f"{url}/config", timeout=60).json()["components"]]
        assert [one["value"] for one in shown if one.get("elem_id") == "find-cut-off"] == [0.4]
        assert list(tmp_path.iterdir())
        before_s = cpu_s(process.pid)
        time.sleep(2)
        assert cpu_s(process.pid) - before_s < 0.1  # nobody asks; with Gradio's own settings 0.16 and more
        with web.stream("GET", f"{url}/gradio_api/heartbeat/abc", timeout=20) as page:
            heard = page.iter_lines()
            assert next(heard) == "data: ALIVE"
            process.send_signal(signal.SIGTERM)  # an open page holds nothing up
            list(heard)
        assert process.wait(20) == 0
        assert errors.read() == ""
    assert list(tmp_path.iterdir()) == []
    assert sorted(store.parent.rglob("*")) == before


def test_it_shows_what_a_server_holds(store: Path, shared_cache: Path, commands: list[list[str]]) -> None:
    with Process("--store", store, "--model", MODEL, "--read-only", cache=shared_cache) as api:
        here = [api.url if word == "http://127.0.0.1:8000" else word for word in commands[1]]
        assert api.url in here
        with started(*here, cache=shared_cache, program=ROOT / "gradio_app.py") as (process, url, _):
            assert "binsight" in web.get(url, timeout=60).text
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130


SHOWN = """
import sys, tempfile
from pathlib import Path
opened = []
sys.addaudithook(lambda event, told: opened.append(str(told[0])) if event == "open" else None)
from binsight.app.run import Source, make_server, open_backend
from binsight.settings import Settings
with tempfile.TemporaryDirectory() as cache:
    make_server(open_backend(Source(store=sys.argv[1]), Settings.read()), Path(cache), None, is_local=True)
print([name for name in ("torch", "timm", "redis", "matplotlib") if name in sys.modules])
print([name for name in opened if name.endswith(".pyi")], len(opened) > 100)
"""


def test_the_screens_load_no_library_of_training_and_write_no_stubs_of_gradios_source(store: Path) -> None:
    found = subprocess.run([sys.executable, "-c", SHOWN, store], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]", "[] True"]


def test_without_gradio_it_says_what_to_install(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with (
        closing(open_backend(Source(store=str(store)), Settings.read())) as backend,
        pytest.raises(MissingExtra, match=r"gradio is not installed; run: pip install 'binsight\[app\]'"),
    ):
        make_server(backend, tmp_path, None, is_local=True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "want either --store URL, to answer from a store here, or --api URL"),
        (("--store", "a", "--api", "http://127.0.0.1:1"), 2, "want either --store URL"),
        (("--api", "http://127.0.0.1:1", "--model", "m"), 2, "--model goes with --store"),
        (("--store", "gone.store"), 2, "gone.store"),
        (("--store", "a", "--min-score", "1.5"), 2, "want min_score from -1 to 1, got 1.5"),
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
