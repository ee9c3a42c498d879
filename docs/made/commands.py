"""The command reference, from the programs' own commands and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

INTRODUCTION = """# Commands

Made from the program: what stands here is what `--help` says. `--json` prints one JSON document on stdout and nothing else
there; progress, notes and errors go to stderr.

| exit code | meaning |
| ---: | --- |
| 0 | done |
| 1 | done, but some inputs were refused, each named |
| 2 | wrong use |
| 3 | could not be done: a store locked or damaged, another model's store, disk full, Redis or network gone |
| 70 | our bug |
| 130 | interrupted |
"""


def page(programs: dict[str, typer.Typer]) -> str:
    """Markdown for programs by the name under which they are called."""
    sections = [_section(path, command) for name, app in programs.items() for path, command in _commands(name, app)]
    return "\n".join([INTRODUCTION, *sections])


def _commands(name: str, app: typer.Typer) -> Iterator[tuple[str, Any]]:  # click's classes, which typer keeps to itself
    """Every command that does something, with the words that call it."""
    waiting = [(name, typer.main.get_command(app))]
    while waiting:
        path, command = waiting.pop(0)
        inner = getattr(command, "commands", None)
        if inner is None:
            yield path, command
        else:
            waiting[:0] = [(f"{path} {word}", one) for word, one in inner.items()]


def _section(path: str, command: Any) -> str:
    context = typer.Context(command, info_name=path)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    needed = [one for one in options if one.required]
    names = [one.metavar or one.name.upper() for one in arguments]
    usage = [path, *names, *(f"{one.opts[0]} {one.metavar or 'VALUE'}" for one in needed)]
    rest = ["[OPTIONS]"] if len(options) > len(needed) else []
    rows = [_row(name, one) for name, one in zip(names, arguments, strict=True)]
    rows += [_row(_names(one, context), one) for one in options]
    table = ["| | | default |", "| --- | --- | --- |", *rows] if rows else []
    return "\n".join([f"## {path}", "", command.help or "", "", "```text", " ".join([*usage, *rest]), "```", "", *table, ""])


def _names(option: Any, context: typer.Context) -> str:
    """As `--help` writes them, and what turns a flag off."""
    if option.is_flag:
        return ", ".join([*option.opts, *option.secondary_opts])
    return str(option.get_help_record(context)[0])


def _row(name: str, parameter: Any) -> str:
    cells = (f"`{name}`", parameter.help or "", _default(parameter))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "must be given"
    default = parameter.default
    if default is None or default is False or default == "" or callable(default):
        return ""
    return f"`{getattr(default, 'value', default)}`"
