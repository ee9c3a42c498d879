"""Lightning without its advice: on loaders' workers (pixels lie in memory), tips, and its own internals."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning")
_ADVICE = r".*(does not have many workers|isinstance\(treespec, LeafSpec\)|lr_scheduler\.step|nn\.functional\.all_gather).*"


@contextmanager
def quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings():
        hush()
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)


def hush() -> None:
    """Quiet from now on: in a process of its own."""
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=_ADVICE)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
