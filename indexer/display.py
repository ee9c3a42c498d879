"""What a running job shows on stderr: a table that lives on a terminal, else a line every few seconds."""

from __future__ import annotations

import threading
from time import perf_counter
from types import TracebackType
from typing import Self, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from binsight.rates import Rates, bottleneck

LINE_EVERY_S = 10.0


@final
class Display:
    """A context manager around the work; `ingest` fills `rates` and calls `progress`. line_every_s: without a terminal."""

    def __init__(self, console: Console | None = None, *, line_every_s: float = LINE_EVERY_S) -> None:
        self.rates = Rates()
        self._console = console or Console(stderr=True, soft_wrap=True)
        self._line_every_s = line_every_s
        self._done = self._total = 0
        self._began = perf_counter()
        self._ended = threading.Event()
        self._live: Live | None = None
        self._teller: threading.Thread | None = None
        columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task("indexing", total=None)

    def progress(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._bar.update(self._task, completed=done, total=total)

    def tell(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._began = perf_counter()
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self._teller = threading.Thread(target=self._tell_on, name="indexer-display", daemon=True)
            self._teller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._teller is not None:
            self._teller.join()

    def _tell_on(self) -> None:
        while not self._ended.wait(self._line_every_s):
            self.tell(self.line())

    def line(self) -> str:
        """How it stands, in one line."""
        stages, wall_s = self.rates.stages(), perf_counter() - self._began
        told = ", ".join(f"{one.stage} {one.per_s:,.0f}/s ({one.share(wall_s):.0%})" for one in stages if one.stage != "list")
        return (
            f"{self._done:,} of {self._total:,} done, {self.rates.unchanged:,} of them were there already; "
            f"{told or 'nothing measured yet'}; bottleneck: {bottleneck(stages) or 'none yet'}"
        )

    def _table(self) -> Group:
        stages, wall_s = self.rates.stages(), perf_counter() - self._began
        slowest = bottleneck(stages)
        table = Table("stage", "items", "items/s while busy", "busy", "", box=None, header_style="bold", pad_edge=False)
        for one in stages:
            mark = "bottleneck" if one.stage == slowest else ""
            table.add_row(one.stage, f"{one.items:,}", f"{one.per_s:,.0f}", f"{one.share(wall_s):.0%}", mark)
        return Group(self._bar, f"{self.rates.unchanged:,} were there already", table)
