"""Where pictures come from: what one picture of a source is, and the rules that all sources share."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from binsight.errors import BadSource
from binsight.records import Metadata

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"})
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # also what a link leads to
_LONGEST_PATH, _MOST_FOLDERS = 4096, 64  # PATH_MAX; and each folder of a name costs a look, whether it is there or not


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what an unchanged file is known without reading it. etag: an object's, empty for a file of this machine."""

    size: int
    mtime_ns: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One candidate: its id, the file, and what is known of it.

    root: absolute folder, or s3://BUCKET[/PREFIX]; uri: the file relative to it, with forward slashes. Together they name the
    file in `_source`. stamp: as the source's own listing gave it; None where the file is asked. manifest: the file that names
    it; empty where it was found.
    """

    id: str
    root: str
    uri: str
    metadata: Metadata
    stamp: Stamp | None = None
    manifest: str = ""

    @property
    def path(self) -> str:
        return joined(self.root, self.uri)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input that cannot be taken, and why."""

    path: str
    error: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds: candidates, files of other types (`skipped`), inputs refused before they were opened, and
    pictures that a metadata file has no row for (`unlisted`, by path; they are candidates all the same).

    is_whole: whether the listing speaks for its whole root, so that what it leaves out may be pruned. has_lost_rows:
    whether it refused rows of which nobody knows what picture they meant. id_prefix: stands before every id. notes: on
    pictures that are taken although something about them contradicts. retries: requests that had to be made again. away: files
    that it names and that are not there, or that the system refuses to look at, by path. manifest: the file that it was read
    from, if it was.
    """

    root: str
    pictures: list[Picture] = field(default_factory=list)
    skipped: int = 0
    refused: list[Refusal] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    is_whole: bool = True
    has_lost_rows: bool = False
    id_prefix: str = ""
    notes: list[Refusal] = field(default_factory=list)
    retries: int = 0
    away: list[str] = field(default_factory=list)
    manifest: str = ""


def joined(root: str, uri: str) -> str:
    """Where a file is, as people and the system name it.

    >>> joined("/", "a.jpg"), joined("s3://bins", "x/a.jpg")
    ('/a.jpg', 's3://bins/x/a.jpg')
    """
    return f"{root.rstrip('/')}/{uri}"


def folder_name(root: str, uri: str) -> str:
    """The name of the folder that a file lies in: the label of a picture of which nothing else is known.

    >>> folder_name("/parts", "ram/a.jpg"), folder_name("/parts", "a.jpg")
    ('ram', 'parts')
    """
    return uri.rsplit("/", 2)[-2] if "/" in uri else root.rstrip("/").rsplit("/", 1)[-1]


def inside(root: Path, path: Path) -> str | None:
    """The path relative to root with forward slashes, or None when it, or what it links to, lies outside.

    root must be resolved; path may be relative to it. None, too, for a path longer or deeper than those of files are.
    """
    if len(str(path)) > _LONGEST_PATH or len(path.parts) > _MOST_FOLDERS + len(root.parts):
        return None
    relative = os.path.relpath(os.path.normpath(root / path), root)
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        return None
    real = os.path.realpath(root / relative)
    if real != str(root) and not real.startswith(str(root).rstrip(os.sep) + os.sep):
        return None
    return relative.replace(os.sep, "/")


def is_picture_file(path: Path) -> bool | None:
    """Whether it is a regular file, and a picture by its ending or its first bytes; None when the system refuses to look."""
    has_ending = path.suffix.lower() in PICTURE_SUFFIXES
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        if has_ending:
            return True
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        return False if error.errno in _GONE else has_ending or None
    return head.startswith(_MAGICS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def checked_unique(listings: list[Listing]) -> None:
    """Raise BadSource, naming both, when two pictures have one id, or a picture comes twice."""
    seen: dict[str, Picture] = {}
    for listing in listings:
        for picture in listing.pictures:
            other = seen.setdefault(picture.id, picture)
            if other is picture:
                continue
            if other.path == picture.path:
                raise BadSource(f"{picture.path} is named twice; give every source, and every row of a manifest, once")
            raise BadSource(
                f"two inputs have the id {picture.id!r}: {other.path} and {picture.path}; "
                "give one of them an id of its own in a manifest, or index them apart with --id-prefix"
            )
