"""What README tells its reader to type is run here, on generated pictures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from binsight.cli import run
from binsight.data.warehouse import render
from tests import bins
from tests.conftest import ROOT
from tests.redis_server import redis_server

MODEL = "binsight:colour-layout"  # in place of names that need the network
SMALL = "--backbone resnet10t --no-pretrained --size 32 --epochs 1 --batch-size 16"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    drawn = render(folder / "world", bins=3, views=1, query_views=1, changes=0)
    (folder / "photos").symlink_to(drawn.manifest.parent / "bins")
    pictures = sorted((drawn.manifest.parent / "bins").rglob("*.jpg"))
    for name in ("photo.jpg", "query.jpg"):
        (folder / name).write_bytes(pictures[0].read_bytes())
    rows = [f"photo.jpg,RAM-1,{quantity},{shelf}" for quantity, shelf in ((4, "A1"),)]
    many = {f"{n:05}": {f"ASIN{n}": 1 + n % 3, f"OTHER{n // 2}": 1} for n in range(60)}
    bins.write(folder / "bins", bins.bins(many))
    (folder / "stock.csv").write_text("\n".join(["path,id,quantity,shelf", *rows, "query.jpg,RAM-2,1,B7"]) + "\n")
    return folder


def test_the_commands_run_as_written(world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(world)
    lines = [line.split("  #")[0].strip() for block in blocks("console") for line in block.splitlines()]
    commands = commands_of(lines)
    assert len(commands) >= 7
    for command in commands:
        assert run(command[1:]) == 0, (command, capfd.readouterr().err)


def commands_of(lines: list[str], *, shared: bool = False) -> list[list[str]]:
    """The commands, with names of models that are here; those that need a Redis, or the others."""
    chosen = [line for line in lines if line.startswith("binsight ") and ("redis://" in line) is shared]
    here = [line.replace("--model resnet50", f"--model {MODEL}").replace("--backbone resnet50", SMALL) for line in chosen]
    return [shlex.split(line) for line in here]


def test_the_commands_with_redis_run_as_written(
    world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    lines = [line.split("  #")[0].strip() for block in blocks("console") for line in block.splitlines()]
    assert run(["index", "photos/", "--store", "parts.store", "--model", MODEL]) == 0
    with redis_server(tmp_path / "redis") as server:
        commands = commands_of([line.replace("localhost:6379", f"127.0.0.1:{server.port}") for line in lines], shared=True)
        assert len(commands) >= 3
        for command in commands:
            assert run(command[1:]) == 0, (command, capfd.readouterr().err)


def test_the_python_runs_as_written(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes((world / "photo.jpg").read_bytes())
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102, our own text
    assert Path("parts.store").is_dir()


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    wanted = {line.split()[1] for block in blocks("console") for line in block.splitlines() if line.startswith("make ")}
    assert {"demo", "test"} <= wanted
    for target in wanted:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


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
