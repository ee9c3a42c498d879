"""Manifests and metadata files: one row a picture, as CSV or JSON lines."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from binsight.data.source import Listing, Picture, Refusal, inside
from binsight.errors import BadSource
from binsight.paths import shown, user_path
from binsight.records import Metadata

SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson"})
_MOST_EXACT = 2**53  # larger whole numbers are not exact in every JSON reader
_RESERVED = "_source"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest: `place` is FILE:LINE, `uri` the picture relative to the root."""

    place: str
    uri: str
    id: str | None
    fields: Metadata


def list_manifest(file: Path, *, root: Path | None = None, id_prefix: str = "") -> Listing:
    """The pictures that a manifest names.

    Metadata is `path` and the row's other fields; the id is the row's `id`, else the path relative to the root (by default
    the file's folder). A row that names no picture, or one outside the root, is refused.
    Raises BadSource when the file cannot be read or has no `path`.
    """
    base = _root(file, root)
    rows, refused = _rows(file, base)
    listing = Listing(str(base), refused=refused, has_lost_rows=bool(refused), id_prefix=id_prefix, manifest=_name_of(file))
    for row in rows:
        if not os.path.isfile(base / row.uri):  # noqa: PTH113, false too where the system refuses to look
            listing.away.append(str(base / row.uri))
            refused.append(Refusal(listing.away[-1], f"no such file, but {row.place} names it"))
        else:
            one, fields = id_prefix + (row.id or row.uri), {"path": row.uri, **row.fields}
            listing.pictures.append(Picture(one, str(base), row.uri, fields, manifest=listing.manifest))
    if not rows and not refused:
        raise BadSource(f"{file} has no rows")
    return listing


def _name_of(file: Path) -> str:
    """By what a manifest is known again: its path, also where that is a link that will lead to another file."""
    path = user_path(file)
    return shown(str(path.parent.resolve() / path.name))


def with_metadata(listings: list[Listing], file: Path, *, root: Path | None = None, id_prefix: str = "") -> list[Listing]:
    """The same listings with each picture's row added to its metadata (and its id, where the row has one).

    Rows without a picture are refused, in the last listing; pictures without a row stay, and are listed as `unlisted`.
    """
    base = _root(file, root)
    rows, refused = _rows(file, base)
    by_path: dict[str, Row] = {}
    for row in rows:
        other = by_path.setdefault(str(base / row.uri), row)
        if other is not row:
            raise BadSource(f"{other.place} and {row.place} both name {row.uri}; want one row a picture")
    used: set[str] = set()
    found = []
    for listing in listings:
        pictures: list[Picture] = []
        unlisted: list[str] = []
        for picture in listing.pictures:
            named = by_path.get(picture.path)
            if named is None:
                unlisted.append(picture.path)
                pictures.append(picture)
                continue
            used.add(picture.path)
            one = id_prefix + named.id if named.id is not None else picture.id
            pictures.append(replace(picture, id=one, metadata=picture.metadata | named.fields))
        found.append(replace(listing, pictures=pictures, unlisted=unlisted))
    has_lost_rows = bool(refused)
    missing = [path for path in by_path if path not in used]
    told = "no such picture among the sources, but {} names it"
    refused += [Refusal(path, told.format(by_path[path].place)) for path in missing]
    last = found[-1]
    return [
        *found[:-1],
        replace(last, refused=[*last.refused, *refused], has_lost_rows=has_lost_rows, away=[*last.away, *missing]),
    ]


def typed(text: str) -> Any:  # any scalar of JSON
    """A CSV value: a number, true or false when it is written exactly as JSON writes it, else the text itself.

    >>> typed("7"), typed("007"), typed("1.50"), typed("true"), typed("")
    (7, '007', '1.50', True, '')
    """
    if text in ("true", "false"):
        return text == "true"
    if not text or text[0] not in "-0123456789":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, int) and abs(value) > _MOST_EXACT:
        return text
    return value if isinstance(value, int | float) and json.dumps(value) == text else text


def _root(file: Path, root: Path | None) -> Path:
    base = user_path(root if root is not None else file.parent).resolve()
    if not base.is_dir():
        raise BadSource(f"the root {base} is not a folder")
    return base


def _rows(file: Path, root: Path) -> tuple[list[Row], list[Refusal]]:
    rows: list[Row] = []
    refused: list[Refusal] = []
    try:
        for place, record in _records(file):
            row = _row(place, record, root) if isinstance(record, dict) else Refusal(place, str(record))
            if isinstance(row, Refusal):
                refused.append(row)
                continue
            rows.append(row)
    except OSError as error:
        raise BadSource(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSource(f"{file} is not UTF-8: {error}") from error
    return rows, refused


def _row(place: str, record: Metadata, root: Path) -> Row | Refusal:
    fields = dict(record)
    path, one = fields.pop("path", None), fields.pop("id", None)
    if not isinstance(path, str) or not path or "\0" in path:
        return Refusal(place, "the row has no path")
    if one is not None and not isinstance(one, str):
        return Refusal(place, f"want an id that is a string, got {one!r}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        return Refusal(path, f"no file has such a name ({place}): {error}")
    uri = inside(root, Path(path))
    if uri is None:
        return Refusal(path, f"leaves the root {root}, or is too deep ({place}); set --root to a folder that holds it")
    return Row(place, uri, one or None, fields)


def _records(file: Path) -> Iterator[tuple[str, Metadata | str]]:
    """(FILE:LINE, record) of each line; a text in place of a record says what is wrong with the line."""
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadSource(f"want a manifest that ends in .csv or .jsonl, got {file}")
    if file.exists() and not file.is_file():
        raise BadSource(f"want a manifest that is a regular file, got {file}")  # a pipe would be waited for
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from _csv(file, lines) if suffix == ".csv" else _jsonl(file, lines)


def _csv(file: Path, lines: Iterator[str]) -> Iterator[tuple[str, Metadata | str]]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_names(file, header)
        if "path" not in header:
            raise BadSource(f"want a column 'path' in {file}, got {', '.join(header) or 'an empty file'}")
        for cells in reader:
            place = f"{file}:{reader.line_num}"
            if len(cells) > len(header):
                yield place, f"the row has {len(cells)} cells, the header {len(header)}"
            elif cells:
                pairs = zip(header, cells, strict=False)
                yield place, {name: cell if name in ("path", "id") else typed(cell) for name, cell in pairs}
    except csv.Error as error:
        if "field limit" in str(error):
            most = csv.field_size_limit()
            raise BadSource(f"{file}:{reader.line_num} has a cell of more than {most:,} characters; shorten it") from error
        raise BadSource(f"{file}:{reader.line_num} is not CSV: {error}") from error


def _jsonl(file: Path, lines: Iterator[str]) -> Iterator[tuple[str, Metadata | str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield place, f"the line is not JSON: {error}"
            continue
        if not isinstance(record, dict):
            yield place, f"want a JSON object, got {type(record).__name__}"
            continue
        if _RESERVED in record:
            raise BadSource(f"the field {_RESERVED!r} is reserved ({place}); rename it")
        yield place, record


def _check_names(file: Path, header: list[str]) -> None:
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise BadSource(f"the column {twice[0]!r} stands twice in {file}; want every name once")
    if _RESERVED in header:
        raise BadSource(f"the column {_RESERVED!r} is reserved ({file}); rename it")
