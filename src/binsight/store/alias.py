"""Aliases: one name that stands for one store after another.

Readers and writers are given the alias; whoever fills a new store lets the alias name it when it is whole, in one step, and
may let it name the former one again. An alias names a store that lies beside it, never another alias.
"""

from __future__ import annotations

import fcntl
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, final

from binsight.errors import BadSettings, CannotBeDone, NotAStore, StoreDamaged
from binsight.paths import user_path
from binsight.store.files import read_sealed_json, replace_file, sealed_json

_FORMAT, _VERSION = "binsight-alias", 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Alias(ABC):
    """The name at a URL, whether or not it stands for a store yet."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called among the stores and aliases beside it."""

    @abstractmethod
    def target(self) -> str | None:
        """The name of the store behind it now; None where this is no alias. Raises StoreDamaged, StoreUnavailable."""

    @abstractmethod
    def url_of(self, name: str, *, is_new: bool = False) -> str:
        """The URL of a store beside it. is_new: one to be made, of which the alias's own URL may say how."""

    @property
    @abstractmethod
    def own_url(self) -> str:
        """The URL of the store of this very name, where this is no alias."""

    def name_of(self, text: str) -> str:
        """The name of a store beside it, however that is given. Raises BadSettings."""
        return checked_name(text)

    @abstractmethod
    def is_alias(self, name: str) -> bool:
        """Whether that name beside it is an alias, too, or this one."""

    def point_at(self, name: str, *, former: str | None = None) -> None:
        """Stand for that store from now on, in place of `former` (None: it was no alias yet), in one step.

        Whoever asks gets the former or the new name, at any time. Raises BadSettings for a name that is an alias itself,
        CannotBeDone when the alias does not stand for `former` any more.
        """
        if self.is_alias(checked_name(name)):
            raise BadSettings(f"{name} is an alias itself; want the name of a store")
        self._exchange(former, name)

    @abstractmethod
    def _exchange(self, former: str | None, name: str) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@final
class LocalAlias(Alias):
    """A small file beside the folders of stores."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = user_path(path, error=BadSettings)

    @property
    def name(self) -> str:
        return self._path.name

    def target(self) -> str | None:
        return read(self._path)

    def url_of(self, name: str, *, is_new: bool = False) -> str:  # noqa: ARG002, a folder is made in one way only
        return f"faiss:{self._path.parent / checked_name(name)}"

    @property
    def own_url(self) -> str:
        return self.url

    def name_of(self, text: str) -> str:
        """Also the path of a folder beside it."""
        path = user_path(text, error=BadSettings)
        if os.sep in text.rstrip(os.sep) and path.parent.resolve() != self._path.parent.resolve():
            raise BadSettings(f"want a store beside {self._path}, in the same folder, got {text}")
        return checked_name(path.name)

    def is_alias(self, name: str) -> bool:
        return read(self._path.parent / name) is not None

    def _exchange(self, former: str | None, name: str) -> None:
        if self._path.is_dir():
            raise BadSettings(f"{self._path} is a folder; choose another name for the alias")
        record = {"format": _FORMAT, "version": _VERSION, "store": name}
        with _locked(self._path.parent):
            now = read(self._path)  # somebody else's file is not written over
            if now != former:
                raise moved(str(self._path), former, now)
            replace_file(self._path, sealed_json(record))

    def close(self) -> None:
        return


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Of those who exchange an alias in a folder, one at a time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def moved(shown: str, former: str | None, now: str | None) -> CannotBeDone:
    """The error of an alias that somebody else has moved meanwhile."""
    wanted = "was no alias" if former is None else f"named {former}"
    is_now = "is none any more" if now is None else f"names {now}"
    return CannotBeDone(f"{shown} {wanted} and {is_now} now: somebody else moved it; look at it, then try again")


def read(path: Path) -> str | None:
    """The name in a pointer file; None where there is no file. Raises NotAStore for another file, StoreDamaged."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if _FORMAT.encode() not in file.read(200):
            raise NotAStore(f"{path} is a file; a store is a folder, or an alias that `binsight store alias` made")
    record = read_sealed_json(path)
    if (record.get("format"), record.get("version")) != (_FORMAT, _VERSION):
        raise StoreDamaged(f"{path} is no alias that this version reads")
    return checked_name(str(record.get("store")))


def checked_name(name: str) -> str:
    """The name of a store beside an alias: no path. Raises BadSettings."""
    if not _NAME.fullmatch(name):
        raise BadSettings(f"want the name of a store beside the alias (letters, digits, '.', '_', '-'), got {name!r}")
    return name
