"""The `binsight` program: its commands and options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from binsight import __version__
from binsight.cli import app as screens
from binsight.cli import count, data, demo, evaluate, export, index, join, search, serve, store, train, tune
from binsight.cli.entry import run_app
from binsight.cli.menu import Menu
from binsight.cli.output import log_to_stderr

app = typer.Typer(
    name="binsight",
    cls=Menu,
    help="From a photo of a bin or a part: what it is. Index pictures into a store, search with a picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("count")(count.count)
app.add_typer(store.app, name="store")
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.add_typer(evaluate.app, name="evaluate")
app.command("export")(export.export)
app.command("join")(join.join)
app.command("serve")(serve.serve)
app.command("app")(screens.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"binsight {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what is being done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del version  # its callback has answered
    log_to_stderr("binsight", verbose=verbose)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv by default) and return its exit code."""
    return run_app(app, "binsight", arguments)


def main() -> NoReturn:
    """The `binsight` program."""
    sys.exit(run())
