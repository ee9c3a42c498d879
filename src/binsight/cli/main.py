"""The entry point: runs a command and turns what it raises into one line and an exit code."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from binsight import __version__
from binsight.cli import count, data, demo, evaluate, export, index, join, search, serve, store, train, tune
from binsight.errors import BinsightError, CannotBeDone, WrongUse

OUR_BUG = 70
INTERRUPTED = 130
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EBADF)

app = typer.Typer(
    name="binsight",
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
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="binsight: %(message)s", stream=sys.stderr, force=True)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv by default) and return its exit code."""
    _open_closed_streams()
    try:
        code = app(args=list(arguments) if arguments is not None else None, prog_name="binsight", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # how typer ends on Ctrl-C
            return _say("interrupted", INTERRUPTED)
        return code if isinstance(code, int) else 0
    except BinsightError as error:
        return _say(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # typer takes it for Ctrl-D at a prompt, of which there is none
            return _other(error.__cause__)
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        _drop_output()
        return 0
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _say(f"want a shorter name than {str(error.filename)[:60]}…", WrongUse.exit_code)
        if error.errno not in UNWRITABLE:
            return _other(error)
        _drop_output()
        return _say(f"could not write: {error.strerror}", CannotBeDone.exit_code)
    except Exception as error:  # noqa: BLE001, the last resort: told as our bug, with its own exit code
        return _other(error)


def _open_closed_streams() -> None:
    """Where the caller closed stdout or stderr, write to nowhere."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _drop_output() -> None:
    """Let go of what could not be written, which Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _other(error: Exception) -> int:
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is not None and code is not None:  # a wrong use that typer found: its own message and code
        show()
        return int(code)
    if os.environ.get("BINSIGHT_DEBUG"):
        traceback.print_exception(error)
    return _say(f"internal error, please report it: {type(error).__name__}: {error} (BINSIGHT_DEBUG=1 shows more)", OUR_BUG)


def _say(message: str, code: int) -> int:
    line = " ".join(message.split("\n")) if code != 2 else message
    with suppress(OSError):  # nobody can be told
        sys.stderr.write(f"binsight: {line}\n")
    return code


def main() -> NoReturn:
    """The `binsight` program."""
    sys.exit(run())
