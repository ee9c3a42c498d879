"""The list of commands that `--help` shows."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Menu(TyperGroup):
    """Commands, each with the first sentence about it: typer cuts it to fit one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002, click's classes, which typer keeps to itself
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=1000)) for name, one in self.commands.items()])
