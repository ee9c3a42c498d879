"""Many photos with a manifest, as a visitor uploads them: a zip archive, or the files themselves.

Nothing in an archive is believed. Its directory is bounded before it is read, names that lead out of it and links are refused,
and what is unpacked is counted as it comes, whatever the archive claims.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from binsight.app.photo import MOST_PHOTO_BYTES
from binsight.data.manifest import SUFFIXES, list_manifest
from binsight.data.source import PICTURE_SUFFIXES, Listing, Refusal, inside
from binsight.errors import BadSource

MOST_FILES = 2000
MOST_BYTES = 1 << 30  # of all files together, unpacked
MOST_MANIFEST_BYTES = 8 << 20
MOST_ROWS = 10_000  # of a manifest, refused ones included
MOST_FOLDERS = 16  # in which a file lies, one in the other: each is made
_MOST_DIRECTORY_BYTES = 2 << 20  # of an archive: a thousand bytes a file
_MOST_ENTRIES = 2 * MOST_FILES  # folders included
_ENTRY, _END, _LARGE_END = b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x07"
_END_SEARCHED = 22 + 65_535  # the end record and the longest comment behind it
_CHUNK = 1 << 20
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What the zipfile module raises for archives that are damaged or made to harm.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, OverflowError)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came: where it lies, and what the visitor calls it (with its folders, where they are known)."""

    path: Path
    name: str


def open_bundle(uploads: Sequence[Upload], into: Path) -> Listing:
    """What the manifest among the uploads lists, with the pictures it names. into: an empty folder that takes the files.

    Raises BadSource, saying what is wrong: no manifest, several, an archive that is damaged, too large or leads out of itself.
    """
    if not uploads:
        raise BadSource("want photos with a manifest: a zip archive, or the files themselves")
    if len(uploads) == 1 and uploads[0].name.lower().endswith(".zip"):
        _unpack(uploads[0].path, into)
    else:
        _lay_out(uploads, into)
    here = f"{into.resolve()}/"
    try:
        manifest = _manifest(into.resolve())
        listing = list_manifest(manifest)
        if _moved([one.path for one in listing.refused], into.resolve()):
            listing = list_manifest(manifest)
    except BadSource as error:
        raise BadSource(str(error).replace(here, "")) from error
    if len(listing.pictures) > MOST_FILES:
        raise BadSource(f"want a manifest of at most {MOST_FILES:,} photos, got {len(listing.pictures):,}; send them in parts")
    refused = [Refusal(one.path.replace(here, ""), one.error.replace(here, "")) for one in listing.refused]
    return replace(listing, refused=refused)


def _manifest(folder: Path) -> Path:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    named = [path for path in found if path.stem.lower() == "manifest"]
    chosen = named if len(named) == 1 else found
    if len(chosen) != 1:
        told = ", ".join(path.name for path in found[:5]) or "none"
        raise BadSource(f"want one manifest (a .csv or .jsonl file with a path and a quantity for each photo), got {told}")
    data = chosen[0].read_bytes()
    rows = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    if rows > MOST_ROWS:
        raise BadSource(f"want a manifest of at most {MOST_ROWS:,} rows, got {rows:,}; send it in parts")
    return chosen[0]


def _lay_out(uploads: Sequence[Upload], into: Path) -> None:
    if len(uploads) > MOST_FILES:
        raise BadSource(f"want at most {MOST_FILES:,} files at once, got {len(uploads):,}; send them in parts")
    left = MOST_BYTES
    for upload in uploads:
        if upload.name.lower().endswith(".zip"):
            raise BadSource("want one zip archive by itself, or files that are no archives")
        target = _target(into, upload.name)
        if target is None:
            continue
        if target.exists():
            raise BadSource(
                f"two files are named {upload.name}; give each its own name, or send a zip archive with their folders"
            )
        size = upload.path.stat().st_size
        if size > _most_bytes(target):
            raise _file_too_large(upload.name, target)
        left -= size
        if left < 0:
            raise _too_large()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(upload.path, target)


def _moved(missing: Sequence[str], into: Path) -> bool:
    """Put what was sent without its folders where the manifest looks for it; whether there was any.

    Browsers tell the names of a folder's files, but not in which folder within it they lay.
    """
    found: set[str] = set()
    for path in map(Path, missing):
        sent = into / path.name
        is_asked = path.name not in found and path.parent != into and path.is_relative_to(into)
        if is_asked and _depth(path.relative_to(into)) <= MOST_FOLDERS and sent.is_file() and not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(sent)
            found.add(path.name)
    return bool(found)


def _depth(path: Path) -> int:
    return len(path.parts) - 1


def _unpack(archive: Path, into: Path) -> None:
    _check_directory(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check_entries(entries)
            left = MOST_BYTES
            for entry in entries:
                target = _target(into, entry.filename)
                if target is not None:
                    left -= _write(opened, entry, target, left)
    except BadSource:  # which is a ValueError, too
        raise
    except _DAMAGE as error:
        raise BadSource(f"the zip archive cannot be unpacked: {error}") from error


def _check_directory(archive: Path) -> None:
    """The zipfile module reads an archive's whole directory and makes an object of each entry; so look at it first."""
    size = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, size - _END_SEARCHED))
        tail = file.read()
        if tail.count(_END) != 1 or _LARGE_END in tail:  # several: readers may differ on which one counts
            raise BadSource("want a plain zip archive of at most 4 GB, got something else")
        end = tail.index(_END)
        length = int.from_bytes(tail[end + 12 : end + 16], "little")
        file.seek(max(0, size - len(tail) + end - length))  # the directory ends where its end record begins
        if length > _MOST_DIRECTORY_BYTES or file.read(length).count(_ENTRY) > _MOST_ENTRIES:
            raise BadSource(f"want a zip archive of at most {MOST_FILES:,} files, got many more")


def _check_entries(entries: Sequence[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_FILES:
        raise BadSource(f"want a zip archive of at most {MOST_FILES:,} files, got {len(entries):,}; send them in parts")
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise _too_large()
    for entry in entries:
        if entry.flag_bits & 1:
            raise BadSource("want a zip archive without a password")
        if entry.compress_type not in _PLAIN:
            raise BadSource(f"want a zip archive that is stored or deflated, but {entry.filename[:80]} is packed another way")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BadSource(f"the zip archive holds a link, {entry.filename[:80]}; want files only")


def _target(into: Path, name: str) -> Path | None:
    """Where a file goes; None for one that is hidden, or neither picture nor manifest. BadSource for one that leads out."""
    if (
        "\\" in name
        or "\0" in name
        or name.startswith("/")
        or inside(into.resolve(), Path(name)) is None
        or ".." in name.split("/")
    ):
        raise BadSource(f"the name {name[:80]!r} leads out of the archive; want names within it")
    if _depth(Path(name)) > MOST_FOLDERS:
        raise BadSource(f"the name {name[:80]!r} lies in too many folders; want at most {MOST_FOLDERS}, one in the other")
    is_wanted = Path(name).suffix.lower() in PICTURE_SUFFIXES | SUFFIXES
    is_hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return into / name if is_wanted and not is_hidden else None


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Unpack one file and say how large it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise BadSource(f"the zip archive holds {entry.filename[:80]} twice")
    written = 0
    with opened.open(entry) as packed, target.open("xb") as file:
        for chunk in iter(partial(packed.read, _CHUNK), b""):
            written += len(chunk)
            if written > _most_bytes(target):
                raise _file_too_large(entry.filename, target)
            if written > left:
                raise _too_large()
            file.write(chunk)
    return written


def _most_bytes(target: Path) -> int:
    return MOST_MANIFEST_BYTES if target.suffix.lower() in SUFFIXES else MOST_PHOTO_BYTES


def _file_too_large(name: str, target: Path) -> BadSource:
    return BadSource(f"{name[:80]} is too large: want at most {_most_bytes(target):,} bytes")


def _too_large() -> BadSource:
    return BadSource(f"want at most {MOST_BYTES / 2**30:g} GB of files together, got more; send them in parts")
