"""Pictures with what is known of them: how many items they show, of which class, with which products."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from binsight.data.abid import IMAGES, MOST_OF_A_BIN, read_bins
from binsight.data.abid_items import bin_facts, describe
from binsight.data.files import S3, Files, open_files
from binsight.data.manifest import SUFFIXES, list_manifest
from binsight.data.source import Picture, Refusal
from binsight.errors import BadSource

Kind: TypeAlias = Literal["abid", "counts", "classes", "manifest"]
_OWN = frozenset(("count", "label", "products", "group"))  # fields of a manifest with a meaning of their own
_WORD = re.compile(r"[^\W\d_]{3,}")
MOST_OF_A_FOLDER = 999  # a folder with a larger number is a part number, not a count


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture. uri: relative to the set's root, forward slashes; None and () stand for what is not known.

    products: ASINs of which at least one is in the bin, sorted. group: pictures of one group, where a manifest names it,
    belong together as if they shared a product. numbers: what else is recorded, none below 0, by name. words: of the names of
    what is recorded, sorted.
    """

    uri: str
    count: int | None
    label: str | None
    products: tuple[str, ...] = ()
    group: str | None = None
    numbers: tuple[tuple[str, float], ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A set of labelled pictures, sorted by uri.

    root: absolute folder, or s3://BUCKET[/PREFIX]. refused: pictures that are not taken, and why. notes: on pictures that are
    taken although something about them contradicts, and on folders without any.
    """

    root: str
    kind: Kind
    pictures: tuple[LabelledPicture, ...]
    refused: tuple[Refusal, ...] = ()
    notes: tuple[Refusal, ...] = ()

    def only(self, low: int, high: int) -> LabelledSet:
        """The same set without pictures whose count is not known or not in low … high."""
        kept = tuple(one for one in self.pictures if one.count is not None and low <= one.count <= high)
        return replace(self, pictures=kept)

    def read(self, uri: str) -> bytes:
        """The file of a picture. Raises BadImage when it cannot be read, CannotBeDone when its source cannot be reached."""
        return open_files(self.root).read(uri)


def open_labelled(source: str) -> LabelledSet:
    """A folder in ABID's layout, of count folders (`1/`, …) or class folders; s3://BUCKET[/PREFIX]; a manifest .csv | .jsonl.

    A folder with `bin-images` is ABID; one whose pictures all lie in folders named by whole numbers holds counts; any other,
    classes named by the folder a picture lies in. A manifest has a `path` and `count` or `label` (or both), optionally
    `products` (a list, or text with `;` between) and `group`; other fields of numbers, and the words of `name` or `names`, are
    kept beside. Raises BadSource when nothing in it can be used.
    """
    if Path(source).suffix.lower() in SUFFIXES:
        return _manifest(source)
    files = open_files(source)
    found = _abid(files) if files.names(IMAGES) is not None else _folders(files)
    return _checked(found, source)


def _abid(files: Files) -> LabelledSet:
    found = read_bins(files, describe)
    pictures, notes = [], []
    for uri, described in found.records.items():
        fields, note = described if described is not None else ({}, None)
        numbers, words = bin_facts(fields), _words(fields.get("names"))
        pictures.append(LabelledPicture(uri, fields["quantity"], None, tuple(fields["products"]), None, numbers, words))
        if note is not None:
            notes.append(Refusal(uri, note))
    return LabelledSet(files.root, "abid", tuple(pictures), tuple(found.refused), (*notes, *found.notes))


def _folders(files: Files) -> LabelledSet:
    uris = files.pictures()
    refused = tuple(Refusal(uri, "lies in no count or class folder") for uri in uris if "/" not in uri)
    held = {uri.split("/")[0] for uri in uris}
    empty = tuple(
        Refusal(name, "holds no picture: there is nothing of it to learn or to measure")
        for name in (files.listed("") or ([], []))[1] if name not in held and not name.startswith(".")
    )  # fmt: skip
    named = [(uri, uri.split("/")[-2]) for uri in uris if "/" in uri]
    numbers = {name for _, name in named if _is_count(name)}
    if named and len(numbers) == len({name for _, name in named}):
        counted = tuple(LabelledPicture(uri, int(name), None) for uri, name in named)
        return LabelledSet(files.root, "counts", counted, refused, empty)
    notes = [Refusal(name, "a number among class folders: taken as a class, not as a count") for name in sorted(numbers)]
    return LabelledSet(
        files.root, "classes", tuple(LabelledPicture(uri, None, name) for uri, name in named), refused, (*empty, *notes)
    )


def _is_count(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name and int(name) <= MOST_OF_A_FOLDER


def _manifest(source: str) -> LabelledSet:
    if source.startswith(S3):
        raise BadSource(f"a manifest is read from this machine, got {source}; copy it here, beside its pictures")
    listing = list_manifest(Path(source))
    refused = list(listing.refused)
    pictures: dict[str, LabelledPicture] = {}
    contradicted: set[str] = set()
    for picture in listing.pictures:
        try:
            one = _labelled(picture)
            if pictures.setdefault(one.uri, one) != one:
                contradicted.add(one.uri)
        except ValueError as error:
            refused.append(Refusal(picture.uri, str(error)))
    refused += [Refusal(uri, "the manifest names it more than once, each time differently") for uri in sorted(contradicted)]
    chosen = tuple(pictures[uri] for uri in sorted(pictures.keys() - contradicted))
    return _checked(LabelledSet(str(listing.root), "manifest", chosen, tuple(refused)), source)


def _labelled(picture: Picture) -> LabelledPicture:
    fields = picture.metadata
    count, label, group = fields.get("count"), _text(fields, "label"), _text(fields, "group")
    if count == "":
        count = None
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_OF_A_BIN):
        raise ValueError(f"want a count that is a whole number from 0 to {MOST_OF_A_BIN:,}, got {repr(count)[:40]}")
    if count is None and label is None:
        raise ValueError("the row has neither count nor label")
    numbers = tuple(sorted((name, float(value)) for name, value in fields.items() if name not in _OWN and _is_number(value)))
    words = _words([fields.get("name"), fields.get("names")])
    return LabelledPicture(picture.uri, count, label, _products(fields.get("products")), group, numbers, words)


def _is_number(value: Any) -> bool:  # any JSON
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _words(names: Any) -> tuple[str, ...]:  # any JSON
    """Lower-case words of three letters and more in a text, or in lists of such."""
    if isinstance(names, list):
        return tuple(sorted({word for one in names for word in _words(one)}))
    return tuple(sorted(set(_WORD.findall(names.lower())))) if isinstance(names, str) else ()


def _text(fields: dict[str, Any], name: str) -> str | None:
    """A field of a CSV row was typed as JSON; a class may be named 7 or true all the same."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise ValueError(f"want a {name} that is a text, got {value!r}")
    return str(value)


def _products(value: Any) -> tuple[str, ...]:  # any JSON
    parts = value if isinstance(value, list) else str(value).split(";") if value is not None else []
    return tuple(sorted({str(part).strip() for part in parts} - {""}))


def _checked(found: LabelledSet, source: str) -> LabelledSet:
    if found.pictures:
        return found
    first = f"; the first: {found.refused[0].path}: {found.refused[0].error}" if found.refused else ""
    raise BadSource(f"no labelled picture in {source} ({len(found.refused)} refused{first})")
