"""Aliases: one name that stands for one store after another.

Readers and writers are given the alias; whoever fills a new store lets the alias name it when it is whole, in one step, and
may let it name the former one again. An alias names a store that lies beside it, never another alias.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self, final

from binsight.errors import BadSettings, NotAStore, StoreDamaged
from binsight.paths import user_path
from binsight.store.files import read_sealed_json, replace_file, sealed_json

_FORMAT, _VERSION = "binsight-alias", 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Alias(ABC):
    """The name at a URL, whether or not it stands for a store yet."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def target(self) -> str | None:
        """The name of the store behind it now; None where this is no alias. Raises StoreDamaged, StoreUnavailable."""

    @abstractmethod
    def url_of(self, name: str) -> str:
        """The URL of a store beside it."""

    @abstractmethod
    def point_at(self, name: str) -> None:
        """Stand for that store from now on. Whoever asks gets the former or the new name, at any time."""

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

    def target(self) -> str | None:
        return read(self._path)

    def url_of(self, name: str) -> str:
        return f"faiss:{self._path.parent / checked_name(name)}"

    def point_at(self, name: str) -> None:
        if self._path.is_dir():
            raise BadSettings(f"{self._path} is a folder; choose another name for the alias")
        if self._path.exists():
            read(self._path)  # somebody else's file is not written over
        record = {"format": _FORMAT, "version": _VERSION, "store": checked_name(name)}
        replace_file(self._path, sealed_json(record))

    def close(self) -> None:
        return


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
