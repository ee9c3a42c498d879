"""Runs what Markdown pages tell their readers to type, in order, in a folder that holds what the page speaks of.

A line of a `console` or `sh` block is run as it stands, but for names of what is elsewhere: a model that has to be fetched, a
port, a Redis. `binsight` and the batch jobs run in this process, `binsight serve` beside it until the next such block begins,
other programs through bash; `pip`, `make` and their like are only looked up. A comment before a block says what is special:

    <!-- file: stock.csv -->             the block is a file that the reader writes
    <!-- meanwhile -->                   the server of the block before goes on
    <!-- needs: gpu -->                  run where there is a GPU
    <!-- not run: it takes a day -->     its commands and options are looked up, not run
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer
import yaml
from indexer.cli import app as indexer_app
from indexer.cli import run as run_indexer

from binsight.cli.main import app as binsight_app
from binsight.cli.main import run as run_binsight
from tests.api.servers import Process
from tests.conftest import ROOT

BACKBONE = "--backbone resnet10t --no-pretrained --size 32 --epochs 1 --batch-size 16"  # one that is trained in seconds
LOOKED_UP = (".", "apt-get", "docker", "make", "pip")
SERVER, REDIS = "http://127.0.0.1:8000", "localhost:6379"
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INDEXER = ["python", "-m", "indexer"]
_ASSIGNMENT = re.compile(r"(?:export )?(?P<name>[A-Z][A-Z0-9_]*)=(?!.*\s(?:binsight|python|curl)\s)")
_OF_SHELLS = re.compile(r"[|<>;&`]|\$\(")
READABLE = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}


@dataclass(frozen=True, slots=True)
class Block:
    """language: of the fence. mark: the comment before it, split at its colon: ("needs", "redis"), or ("", "")."""

    language: str
    text: str
    mark: tuple[str, str]

    @property
    def lines(self) -> list[str]:
        """Commands, without prompts of a shell, comments and line breaks within."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        bare = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in bare if line]


def pages() -> list[Path]:
    """Every Markdown page that a reader may follow, relative to the root."""
    found = [ROOT / "README.md", ROOT / "indexer" / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT) for path in found if "adr" not in path.parts)


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    marks = [(found["mark"] or "").partition(":")[::2] for found in _BLOCK.finditer(text)]
    return [
        Block(found["language"], found["text"], (mark[0].strip(), mark[1].strip()))
        for found, mark in zip(_BLOCK.finditer(text), marks, strict=True)
    ]


class Reader:
    """Types what a page says, in the folder it is in.

    model: in place of those that the network has. redis: where `localhost:6379` is; without, lines that name it are put into
    `left_out`. cache: of the servers that are started.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, model: Path, cache: Path, redis: str | None = None) -> None:
        self.left_out: list[str] = []
        self._patch, self._cache, self._redis = monkeypatch, cache, redis
        self._elsewhere = {r"--model resnet50\b": f"--model {model}", r"--backbone resnet50\b": BACKBONE, REDIS: redis or REDIS}
        self._servers = ExitStack()
        self._given = sorted(Path.cwd().iterdir())
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        Path(".curlrc").write_text("fail\nsilent\nshow-error\n", encoding="utf-8")
        monkeypatch.setenv("CURL_HOME", str(Path.cwd()))

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def follow(self, block: Block) -> None:
        """Raises AssertionError, naming the line, where it does not do as written."""
        if block.mark[0] == "file":
            Path(block.mark[1]).write_text(block.text, encoding="utf-8")
        elif block.language in ("console", "sh"):
            if block.mark[0] != "meanwhile":
                self._servers.close()
            for line in block.lines:
                self._type(line)
        elif block.language == "python":
            self._run(self._here(block.text))
        else:
            read(block)

    def _type(self, line: str) -> None:
        look_up(line)
        if REDIS in line and self._redis is None:
            self.left_out.append(line)
            return
        line = self._here(line)
        if line.split()[0] in LOOKED_UP:
            return
        if found := _ASSIGNMENT.match(line):
            self._patch.setenv(found["name"], _bash(f'{line}; printf %s "${found["name"]}"'))
        elif line.startswith("binsight serve "):
            self._serve(line)
        elif line.startswith("binsight app "):
            raise AssertionError(f"the screens end by a signal only; mark the block as not run: {line}")
        elif (program := _program(line)) is not None and not _OF_SHELLS.search(line):
            words, run, _ = program
            assert run(shlex.split(line)[len(words) :]) == 0, line
        else:
            _bash(line)

    def _serve(self, line: str) -> None:
        server = self._servers.enter_context(Process(*shlex.split(line)[2:], cache=self._cache))
        self._elsewhere[SERVER] = server.url

    def _run(self, program: str) -> None:
        """In a folder of its own, with what was given, for a store of another model may lie in this one."""
        with TemporaryDirectory(dir=Path.cwd()) as apart, self._patch.context() as patch:
            for path in self._given:
                (Path(apart) / path.name).symlink_to(path)
            patch.chdir(apart)
            exec(compile(program, "page", "exec"), {"__name__": "page"})  # noqa: S102, our own text

    def _here(self, text: str) -> str:
        for name, instead in self._elsewhere.items():
            text = re.sub(name, instead, text)
        return text


def look_up(line: str) -> None:
    """Raises AssertionError where a line names an extra, a target, a command or an option that is not there."""
    words = line.split()
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE), line
    if words[0] == "pip" and (extras := re.search(r"\[([\w,]+)\]", line)):
        assert set(extras[1].split(",")) <= _extras(), line
    if (program := _program(line)) is not None:
        _check_options(shlex.split(line)[len(program[0]) :], _command(program[2]), line)


def read(block: Block) -> None:
    """Raises what is wrong with a block of data; of other languages only those that promise nothing are let through."""
    if block.language in READABLE:
        READABLE[block.language](block.text)
    else:
        assert block.language in ("text", "csv", ""), f"a block of no known kind: {block.language}"


def _program(line: str) -> tuple[list[str], Callable[[Sequence[str]], int], typer.Typer] | None:
    """The words that call one of our programs, how it is run in this process, and what it is."""
    for words, run, app in ((["binsight"], run_binsight, binsight_app), (_INDEXER, run_indexer, indexer_app)):
        if line.split()[: len(words)] == words:
            return words, run, app
    return None


def _check_options(words: list[str], command: Any, line: str) -> None:  # click's class, which typer keeps to itself
    while words and (inner := getattr(command, "commands", {}).get(words[0])) is not None:
        command, words = inner, words[1:]
    assert not hasattr(command, "commands"), f"no such command: {line}"
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known, f"no such option: {given - known} in {line}"


@cache
def _command(app: typer.Typer) -> Any:
    return typer.main.get_command(app)


@cache
def _extras() -> set[str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(document["project"]["optional-dependencies"])


def _bash(line: str) -> str:
    shell = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=120)
    assert not done.returncode, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout
