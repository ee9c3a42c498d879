"""The `binsight` program: its commands and options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, ClassVar, NoReturn

import typer

from binsight import __version__
from binsight.cli.entry import run_app
from binsight.cli.menu import Menu
from binsight.cli.output import log_to_stderr


class Verbs(Menu):
    """All commands, none of which waits for what another one imports."""

    late: ClassVar = {
        "demo": "binsight.cli.demo:demo",
        "index": "binsight.cli.index:index",
        "search": "binsight.cli.search:search",
        "count": "binsight.cli.count:count",
        "train": "binsight.cli.train:train",
        "tune": "binsight.cli.tune:tune",
        "export": "binsight.cli.export:export",
        "join": "binsight.cli.join:join",
        "serve": "binsight.cli.serve:serve",
        "app": "binsight.cli.app:app",
        "store": "binsight.cli.store:app",
        "data": "binsight.cli.data:app",
        "evaluate": "binsight.cli.evaluate:app",
    }


app = typer.Typer(
    name="binsight",
    cls=Verbs,
    help="From a photo of a bin or a part: what it is. Index pictures into a store, search with a picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


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
