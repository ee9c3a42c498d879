"""The commands of a program: the list that `--help` shows, and loading one only when it is asked for."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group


class Menu(TyperGroup):
    """Commands, each with the first sentence about it: typer cuts it to fit one line.

    late: further commands, "module:function" or "module:app" by name, which stand before the others in the list. What they
    import costs a command line of another command nothing.
    """

    late: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands({**self.late, **self.commands})

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002, click's classes, which typer keeps to itself
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=1000)) for name, one in self.commands.items()])


class _Commands(UserDict[str, Any]):
    """Commands by name; one that is given as text is imported when it is first looked at."""

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = self.data[name] = _built(name, getattr(import_module(module), attribute))
        return found


def _built(name: str, found: Any) -> Any:  # a function or a Typer → a click command
    command: Any
    if isinstance(found, typer.Typer):
        command = get_group(found)
    else:
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        alone.command(name)(found)
        command = get_command(alone)
    command.name = name
    return command
