"""What the commands print: JSON or a table on stdout, progress on stderr."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from binsight.paths import shown
from binsight.records import Metadata
from binsight.store.base import SOURCE_KEY

_SURROGATES = re.compile("[\ud800-\udfff]+")


def print_json(document: Any) -> None:  # any JSON
    """One JSON document on stdout, and nothing else.

    Names that are not UTF-8 come as `paths.shown` shows them; a number that is none (NaN, infinite), which JSON lacks, is null.
    """
    text = json.dumps(_finite(document), ensure_ascii=False, indent=2, default=str, allow_nan=False)
    sys.stdout.write(_SURROGATES.sub(lambda found: json.dumps(shown(found[0]))[1:-1], text) + "\n")


def _finite(value: Any) -> Any:  # any JSON
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table for people on stdout; nothing in it is read as markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)


def told(metadata: Metadata, *, without: Sequence[str] = ()) -> str:
    """Metadata as `name=value` words, for a table."""
    hidden = {SOURCE_KEY, *without}
    return "  ".join(f"{name}={value}" for name, value in metadata.items() if name not in hidden)


def log_to_stderr(name: str, *, verbose: bool) -> None:
    """Warnings, with verbose what is being done too, as lines that begin with the program's name; always what takes long."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format=f"{name}: %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("binsight.encoder.slow").setLevel(logging.INFO)


@contextmanager
def progress_on_stderr(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, silence elsewhere."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show(message: str) -> None:
    """A command's answer in one line, on stdout."""
    sys.stdout.write(_printable(message) + "\n")


def say(message: str) -> None:
    """One line for people, on stderr."""
    sys.stderr.write(_printable(message) + "\n")


def _printable(text: str) -> str:
    """Control characters shown as such, so that a file name cannot steer a terminal."""
    return "".join(char if char.isprintable() or char == " " else repr(char)[1:-1] for char in shown(text))
