"""Paths as people type them and as others may read them: checked on the way in, printable on the way out."""

from __future__ import annotations

import os
from pathlib import Path

from binsight.errors import BadSource, WrongUse


def user_path(text: str | os.PathLike[str], *, error: type[WrongUse] = BadSource) -> Path:
    """The path, with `~` expanded, once the system is known to take such a one; nothing need be there.

    Raises `error` for an empty one, one too long or through links without end, an unknown user's home.

    >>> user_path("parts/a.jpg").name
    'a.jpg'
    """
    if not os.fspath(text):
        raise error("want a path, got an empty one")
    try:
        path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except RuntimeError as cause:  # how pathlib says that it knows no such user
        raise error(f"want a path, got {_shortened(shown(text))!r}: {cause}") from cause
    except (OSError, ValueError) as cause:
        why = cause.strerror if isinstance(cause, OSError) else cause
        raise error(f"want a path that the system can look at, got {_shortened(shown(text))!r}: {why}") from cause
    return path


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that any terminal and JSON can carry: bytes that are not UTF-8 come as backslash and number."""
    return os.fspath(path).encode(errors="backslashreplace").decode()


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]}…{text[-60:]}"
