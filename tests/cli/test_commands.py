"""The commands as a user types them: what they print, and how they end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from binsight.cli import run
from binsight.cli.output import print_json
from tests.fakes import paint

MODEL = "binsight:colour-layout"


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs a command line in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str | Path) -> Result:
        self._capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = self._capfd.readouterr()
        return Result(code, out, err)

    def fails(self, *arguments: str | Path, code: int) -> str:
        """The one line that a failing command says; nothing else on either stream, no traceback."""
        result = self(*arguments)
        assert (result.code, result.out) == (code, ""), result.err
        assert "Traceback" not in result.err
        assert result.err.startswith("binsight: ")
        return result.err


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capfd)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for label, colour in {"red": (210, 30, 20), "green": (20, 190, 40), "blue": (20, 40, 220)}.items():
        for n in range(3):
            path = paint(tmp_path / f"parts/{label}/{n}.png", (225, 225, 220), size=(96, 96))
            with Image.open(path) as image:
                ImageDraw.Draw(image).ellipse((20 + n, 24, 70 + n, 74 + 2 * n), fill=colour)
                image.save(path)
    return tmp_path / "parts"


@pytest.fixture
def store(shell: Shell, parts: Path, tmp_path: Path) -> Path:
    assert shell("index", parts, "--store", tmp_path / "s.store", "--model", MODEL).code == 0
    return tmp_path / "s.store"


def test_index_reports_every_input_as_json(shell: Shell, parts: Path, tmp_path: Path) -> None:
    (parts / "notes.txt").write_text("x")
    (parts / "red/bad.jpg").write_text("no picture")
    result = shell("index", parts, "--store", tmp_path / "s.store", "--model", MODEL, "--json")
    assert result.code == 1
    document = result.document
    assert {name: document[name] for name in ("indexed", "unchanged", "pruned", "skipped")} == {
        "indexed": 9, "unchanged": 0, "pruned": 0, "skipped": 1
    }  # fmt: skip
    assert [Path(one["path"]).name for one in document["refused"]] == ["bad.jpg"]
    assert document["refused"][0]["error"]
    assert document["images_per_s"] == pytest.approx(9 / document["took_s"], rel=0.2)
    assert document["load_s"] >= 0
    assert "bad.jpg" in result.err


def test_indexing_again_needs_no_model_name_and_changes_nothing(shell: Shell, parts: Path, store: Path) -> None:
    document = shell("index", parts, "--store", store, "--json").document
    assert (document["indexed"], document["unchanged"]) == (0, 9)


def test_search_prints_matches_with_their_records_as_json(shell: Shell, parts: Path, store: Path) -> None:
    query = parts / "green/1.png"
    result = shell("search", query, "--store", store, "-k", "3", "--json")
    assert result.code == 0
    document = result.document
    assert set(document) == {"query", "count", "matches", "took_ms"}
    assert (document["query"], document["count"]) == (str(query), None)
    assert document["matches"][0]["id"] == "green/1.png"
    assert document["matches"][0]["score"] == pytest.approx(1.0, abs=1e-4)
    assert {match["metadata"]["label"] for match in document["matches"]} == {"green"}
    assert all(value >= 0 for value in document["took_ms"].values())


def test_search_takes_a_filter_and_a_cut_off(shell: Shell, parts: Path, store: Path) -> None:
    query = parts / "green/1.png"
    found = shell("search", query, "--store", store, "--where", 'label != "green"', "--json").document["matches"]
    assert len(found) == 6
    assert "green" not in {match["metadata"]["label"] for match in found}
    result = shell("search", query, "--store", store, "--where", 'label = "none"')
    assert (result.code, result.out) == (0, "")
    assert "none of the 9 items passes where 'label = \"none\"'" in result.err
    result = shell("search", query, "--store", store, "--where", 'label = "none"', "--min-score", "0.5", "--json")
    assert (result.code, result.document["matches"]) == (0, [])
    assert result.err == "no matches: none of the 9 items passes where 'label = \"none\"' and --min-score 0.5\n"
    found = shell("search", query, "--store", store, "--min-score", "0.9", "--json").document["matches"]
    assert {match["metadata"]["label"] for match in found} == {"green"}


def test_search_says_which_field_no_item_has(shell: Shell, parts: Path, store: Path) -> None:
    query = parts / "green/1.png"
    result = shell("search", query, "--store", store, "--where", "lable = 'green'", "--json")
    assert (result.code, result.document["matches"]) == (0, [])
    assert result.err.splitlines() == [
        "no matches: none of the 9 items passes where \"lable = 'green'\"",
        "note: no item has a field 'lable'; there are label, path",
    ]
    assert shell("search", query, "--store", store, "--where", "lable = 'x' or label = 'green'").err == ""


def test_search_prints_a_table_for_people(shell: Shell, parts: Path, store: Path) -> None:
    lines = shell("search", parts / "red/0.png", "--store", store, "-k", "2").out.splitlines()
    assert lines[0].split() == ["#", "score", "id", "record"]
    assert lines[1].split() == ["1", "1.000", "red/0.png", "label=red"]
    assert len(lines) == 3


def test_store_commands_show_delete_verify_and_compact(shell: Shell, store: Path) -> None:
    document = shell("store", "info", store, "--json").document
    assert (document["items"], document["model"], document["metric"]) == (9, MODEL, "cosine")
    assert {"dim", "fingerprint", "created"} <= set(document)
    result = shell("store", "get", store, "red/0.png", "nope", "--json")
    assert result.code == 1
    assert result.document[0]["metadata"]["label"] == "red"
    assert result.document[1] == {"id": "nope", "error": "no such item"}
    assert "'nope'" in result.err
    result = shell("store", "delete", store, "red/0.png", "nope", "--json")
    assert (result.code, result.document) == (1, {"deleted": 1, "missing": ["nope"]})
    assert shell("store", "compact", store, "--json").document["items"] == 8
    result = shell("store", "verify", store, "--json")
    assert (result.code, result.document["sound"], result.document["items"]) == (0, True, 8)


def test_verify_of_a_damaged_store_names_the_row_and_ends_with_3(shell: Shell, store: Path) -> None:
    (file,) = store.glob("vectors-*")
    with file.open("r+b") as vectors:
        vectors.seek(-5, os.SEEK_END)
        vectors.write(b"\x55")
    result = shell("store", "verify", store, "--json")
    assert (result.code, result.document["sound"]) == (3, False)
    assert any("row 8 (id 'red/2.png')" in problem for problem in result.document["problems"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("index", "{parts}/nothing", "--store", "{tmp}/new.store", "--model", MODEL), 2, "no such file or folder"),
        (("index", "{tmp}/empty", "--store", "{tmp}/new.store", "--model", MODEL), 2, "no picture under"),
        (("index", "{parts}", "--store", "{tmp}/new.store"), 2, "--model"),
        (("index", "{parts}", "--store", "{tmp}/new.store", "--model", "binsight:none"), 2, "binsight:none"),
        (("index", "{parts}", "--store", "{tmp}/new.store", "--model", "resnet5O"), 2, "resnet50"),
        (("index", "{parts}", "--store", "{tmp}/new.store", "--model", "local-dir:{tmp}/empty"), 2, "empty"),
        (("index", "{parts}", "--store", "{parts}", "--model", MODEL), 2, "choose another path"),
        (("index", "{parts}", "--store", "{parts}/red/0.png", "--model", MODEL), 2, "is a file"),
        (("index", "s3://", "--store", "{tmp}/new.store", "--model", MODEL), 2, "s3://BUCKET"),
        (("index", "{parts}", "--store", "shards:{tmp}/new", "--model", MODEL), 2, "`python -m indexer run … --store shards:"),
        (("search", "{parts}/red/0.png", "--store", "{tmp}/nothing"), 2, "is not a store"),
        (("search", "{parts}/red/0.png", "--store", "{parts}"), 2, "is not a store"),
        (("search", "{parts}/red/0.png", "--store", "{store}", "-k", "0"), 2, "k from 1"),
        (("search", "{parts}/red/0.png", "--store", "{store}", "--where", "label ="), 2, "label ="),
        (("search", "{parts}/red/0.png", "--store", "{store}", "--min-score", "2"), 2, "min_score"),
        (
            ("search", "{parts}/nothing.png", "--store", "{store}"),
            1,
            "binsight: {parts}/nothing.png: cannot be read: No such file",
        ),
        (("search", "{tmp}/text.png", "--store", "{store}"), 1, "binsight: {tmp}/text.png: "),
        (
            ("search", "{parts}/red/0.png", "--store", "redis://127.0.0.1:1/0?index=x"),
            3,
            "Connection refused; see that a Redis 8 server runs there",
        ),
        (("search", "{parts}/red/0.png", "--store", "redis://localhost/0"), 2, "index=NAME"),
        (("store", "info", "{tmp}/nothing"), 2, "is not a store"),
        (("index", "", "--store", "{tmp}/new.store", "--model", MODEL), 2, "empty"),
        (("index", "{long}", "--store", "{tmp}/new.store", "--model", MODEL), 2, "File name too long"),
        (("index", "~nosuchuser/x", "--store", "{tmp}/new.store", "--model", MODEL), 2, "home"),
        (("index", "{parts}", "--store", "{tmp}/{long}", "--model", MODEL), 2, "File name too long"),
        (("index", "{parts}", "--store", "~nosuchuser/x", "--model", MODEL), 2, "home"),
        (("index", "{parts}", "--root", "{long}", "--metadata", "m.csv", "--store", "{store}"), 2, "File name too long"),
        (("index", "{parts}", "--root", "{tmp}/loop", "--metadata", "m.csv", "--store", "{store}"), 2, "symbolic links"),
        (("index", "{parts}", "--metadata", "{long}.csv", "--store", "{store}"), 2, "File name too long"),
        (("store", "info", "{long}"), 2, "File name too long"),
        (("demo", "--out", "{tmp}/{long}"), 2, "File name too long"),
        (("demo", "--out", "{tmp}/text.png"), 2, "is none"),
        (("demo", "--out", "{tmp}/demo", "--seed", "-1"), 2, "seed of at least 0"),
        (("demo", "--out", "/proc/demo"), 3, "cannot write the demonstration to /proc/demo"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing_behind(
    shell: Shell, parts: Path, store: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = lasting(tmp_path)
    filled = [argument.format(parts=parts, tmp=tmp_path, store=store, long="x" * 300) for argument in arguments]
    assert message.format(parts=parts, tmp=tmp_path) in shell.fails(*filled, code=code)
    assert lasting(tmp_path) == before


def lasting(folder: Path) -> list[Path]:
    """All files but SQLite's scratch files, which a reader makes and the next writer takes away."""
    return sorted(path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm")))


def test_wrong_options_end_with_2(shell: Shell) -> None:
    assert shell("search").code == 2
    assert shell("nonsense").code == 2
    assert shell("store", "info").code == 2


def test_another_model_is_refused_with_both_fingerprints_and_3(shell: Shell, parts: Path, store: Path, tmp_path: Path) -> None:
    from tests.model_folders import make_model_folder

    other = make_model_folder(tmp_path / "other")
    line = shell.fails("search", parts / "red/0.png", "--store", store, "--model", f"local-dir:{other}", code=3)
    mine = shell("store", "info", store, "--json").document["fingerprint"]
    assert mine in line
    assert line.count("fingerprint") == 2


def test_a_store_that_is_being_written_is_refused_at_once_with_the_pid(shell: Shell, parts: Path, store: Path) -> None:
    program = f"import time; from binsight import open_store; s = open_store({str(store)!r})\n"
    program += "print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"open\n"
            assert shell("search", parts / "red/0.png", "--store", store).code == 0  # what is imported is not timed
            started = time.perf_counter()
            line = shell.fails("index", parts, "--store", store, code=3)
            assert time.perf_counter() - started < 1.0
            assert f"process {owner.pid}" in line
        finally:
            owner.kill()


def test_two_faiss_packages_are_named(shell: Shell, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "site/faiss_gpu_cuvs-1.15.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: faiss-gpu-cuvs\nVersion: 1.15.1\n")
    program = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
    found = subprocess.run(
        [sys.executable, "-c", program, "store", "info", str(store)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{other.parent}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert found.returncode == 3
    assert "faiss-cpu and faiss-gpu-cuvs are both installed" in found.stderr
    assert "Traceback" not in found.stderr


def test_interrupting_ends_with_130_and_leaves_a_sound_store(parts: Path, tmp_path: Path) -> None:
    for n in range(3000):
        paint(parts / f"many/{n}.png", (n % 256, n // 256, 9))
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & ignores it
    program += "from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["index", str(parts), "--store", str(tmp_path / "s.store"), "--model", MODEL]
    job = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("s.store/journal*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 130, err
    assert "Traceback" not in err
    assert run(["store", "verify", str(tmp_path / "s.store")]) == 0


def test_every_command_and_option_says_what_it_does(shell: Shell) -> None:
    import typer.main

    from binsight.cli.main import app

    def commands(group: Any) -> Any:
        for command in group.commands.values():
            yield command
            if hasattr(command, "commands"):
                yield from commands(command)

    for command in commands(typer.main.get_command(app)):
        assert command.help, command.name
        for parameter in command.params:
            assert parameter.help, (command.name, parameter.name)
    assert shell("--help").code == 0


@pytest.mark.parametrize("group", [(), ("store",), ("data",), ("evaluate",)], ids=" ".join)
def test_a_menu_names_every_command_by_a_whole_sentence(shell: Shell, group: tuple[str, ...]) -> None:
    menu = shell(*group, "--help").out.partition("Commands:")[2]
    assert menu
    assert "..." not in menu
    assert shell("--version").out.startswith("binsight 0.")


def test_a_closed_pipe_is_no_error(store: Path) -> None:
    program = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
    job = subprocess.Popen(
        [sys.executable, "-c", program, "store", "info", str(store), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert job.stdout is not None
    job.stdout.close()
    _, err = job.communicate(timeout=60)
    assert b"Traceback" not in err
    assert b"Exception" not in err


PROGRAM = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"


def shell_line(line: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A line of sh in which "$@" is the program with the arguments."""
    words = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(["/bin/sh", "-c", line, "sh", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", ['"$@" >&-', '"$@" 2>&-', '"$@" >&- 2>&-', '"$@" <&- >&- 2>&-'])
def test_closed_streams_are_no_error(store: Path, line: str) -> None:
    for arguments in (("store", "info", store, "--json"), ("--help",)):
        found = shell_line(line, *arguments)
        assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("form", ["--json", "table"])
def test_output_that_cannot_be_written_ends_with_3_and_one_line(store: Path, form: str) -> None:
    found = shell_line('"$@" > /dev/full', "store", "info", store, *([form] if form == "--json" else []))
    assert (found.returncode, found.stderr) == (3, "binsight: could not write: No space left on device\n")
    assert shell_line('"$@" 2> /dev/full', "store", "info", store / "nothing").returncode == 2


def test_an_interrupt_during_the_imports_ends_with_130(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--help"], capture_output=True, text=True, check=False, env=environment
    )
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "binsight: interrupted\n")


def test_names_that_are_no_utf_8_are_json_all_the_same(shell: Shell, parts: Path, store: Path) -> None:
    raw = parts / os.fsdecode(b"\xff.png")
    raw.write_bytes((parts / "red/0.png").read_bytes())
    document = shell("search", raw, "--store", store, "--json").document
    assert document["query"] == str(parts / "\\udcff.png")
    (parts / "m.jsonl").write_text('{"path": "red/0.png"}')
    document = shell("index", parts, "--store", store, "--metadata", parts / "m.jsonl", "--json").document
    assert str(parts / "\\udcff.png") in [one["path"] for one in document["refused"]]


def test_numbers_that_are_none_are_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, [None, 1.5]], "b": {"c": None}}


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ("--version", ["pydantic", "PIL", "faiss", "binsight.cli.store", "binsight.cli.count"]),
        ("store info --help", ["pydantic_settings", "PIL", "binsight.encoder", "binsight.cli.replace", "binsight.cli.count"]),
        ("data split --help", ["openvino", "binsight.encoder", "binsight.evaluation", "binsight.cli.count"]),
        ("search --help", ["openvino", "binsight.evaluation", "binsight.data.report", "binsight.cli.store"]),
    ],
)
def test_a_command_loads_nothing_of_the_others(options: str, others: list[str]) -> None:
    program = "import sys\nfrom binsight.cli import run\ncode = run(sys.argv[1:])\nprint(code, *sys.modules)"
    command = [sys.executable, "-c", program, *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *loaded = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert "binsight.cli.main" in loaded
    assert set(others).isdisjoint(loaded), set(others).intersection(loaded)
