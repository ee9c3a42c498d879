"""How a command line runs: what it raises becomes one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from typing import TextIO

import typer
from typer.main import get_command

from binsight.errors import BinsightError, CannotBeDone, WrongUse

OUR_BUG = 70
INTERRUPTED = 130
_BUILT = cache(get_command)  # once a program: to read all commands' signatures takes as long as a short command
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EBADF)


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv by default) of a program and return its exit code."""
    _open_closed_streams()
    try:
        code = _BUILT(app)(args=list(arguments) if arguments is not None else None, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # how typer ends on Ctrl-C
            return _say(name, "interrupted", INTERRUPTED)
        return code if isinstance(code, int) else 0
    except BinsightError as error:
        return _say(name, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # typer takes it for Ctrl-D at a prompt, of which there is none
            return _other(name, error.__cause__)
        return _say(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        _drop(sys.stdout)
        return 0
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _say(name, f"want a shorter name than {str(error.filename)[:60]}…", WrongUse.exit_code)
        if error.errno not in UNWRITABLE:
            return _other(name, error)
        _drop(sys.stdout)
        return _say(name, f"could not write: {error.strerror}", CannotBeDone.exit_code)
    except Exception as error:  # noqa: BLE001, the last resort: told as our bug, with its own exit code
        return _other(name, error)


def _open_closed_streams() -> None:
    """Where the caller closed stdout or stderr, write to nowhere."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _drop(stream: TextIO) -> None:
    """Let go of what could not be written, which Python would try again at its end, and then give an exit code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _other(name: str, error: Exception) -> int:
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is not None and code is not None:  # a wrong use that typer found: its own message and code
        show()
        return int(code)
    if os.environ.get("BINSIGHT_DEBUG"):
        traceback.print_exception(error)
    return _say(
        name, f"internal error, please report it: {type(error).__name__}: {error} (BINSIGHT_DEBUG=1 shows more)", OUR_BUG
    )


def _say(name: str, message: str, code: int) -> int:
    line = " ".join(message.split("\n")) if code != 2 else message
    try:
        sys.stderr.write(f"{name}: {line}\n")
        sys.stderr.flush()
    except OSError:  # nobody can be told
        _drop(sys.stderr)
    return code
