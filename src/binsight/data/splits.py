"""Which pictures train, choose and test a model: by product group, so that no bin is met again, or at random, with the leak."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from binsight.data.files import write_atomically
from binsight.data.groups import product_groups, sister_shots, ties_of
from binsight.data.labelled import LabelledPicture, LabelledSet
from binsight.errors import BadSettings, BadSource

__all__ = [
    "NAMES",
    "TEST",
    "TRAIN",
    "VAL",
    "By",
    "Leak",
    "Split",
    "SplitRow",
    "checked_fractions",
    "contradiction",
    "crossing_groups",
    "leak",
    "make_split",
    "product_groups",
    "read_split",
    "write_split",
]

By: TypeAlias = Literal["group", "random"]
TRAIN, VAL, TEST = "train", "val", "test"
NAMES = (TRAIN, VAL, TEST)
_DIGITS = 7  # of a count
POOLED_FROM = 10  # counts from here on are spread as one
COLUMNS = ("path", "split", "group")


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One picture of a split. path: the picture's uri; group: what it may not be parted from."""

    path: str
    split: str
    group: str
    count: int | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Split:
    """Rows sorted by path. fractions: percent of train/val/test, or of train/test; seed: None where a file did not say."""

    rows: tuple[SplitRow, ...]
    by: By
    fractions: tuple[float, ...]
    seed: int | None

    def of(self, name: str) -> tuple[SplitRow, ...]:
        """The rows of one split. Raises BadSource when it has none."""
        found = tuple(row for row in self.rows if row.split == name)
        if not found:
            there = ", ".join(f"{split} ({n})" for split, n in self.sizes.items())
            raise BadSource(f"the split has no {name!r} rows; it has {there}")
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Pictures by split, in the order train, val, test; only splits that have some."""
        counted = Counter(row.split for row in self.rows)
        return {name: counted[name] for name in NAMES if counted[name]}


@dataclass(frozen=True, slots=True)
class Leak:
    """How much of val and test a model has met in training.

    held_out: pictures in val and test. group_share: of these, the share whose product group is in train. product_share:
    the share that has a product in common with a picture of train. sister_share: the share of which the picture of the next
    or the last number, with a product in common, is in train: mostly a second shot of the same bin.
    """

    held_out: int
    group_share: float
    product_share: float
    sister_share: float

    @property
    def is_leaking(self) -> bool:
        return self.group_share > 0


def make_split(labelled: LabelledSet, *, by: By = "group", fractions: Sequence[float] = (60, 20, 20), seed: int = 0) -> Split:
    """The pictures shared out, alike in counts (or classes) and in size as asked for.

    fractions: train/val/test, or train/test, of any sum. by="group" keeps product groups whole; a group larger than a split's
    share goes to train. by="random" parts them (measure `leak`). The same set and seed give the same split.
    Raises BadSettings for fractions or a set that cannot be split so.
    """
    names, shares = checked_fractions(fractions)
    pictures = labelled.pictures
    groups = product_groups(pictures)
    if by not in ("group", "random"):
        raise BadSettings(f"want by to be group or random, got {by!r}")
    units = groups if by == "group" else [picture.uri for picture in pictures]
    chosen = _share_out(units, [_stratum(picture) for picture in pictures], shares, seed)
    found = set(chosen.values())
    empty = [name for place, name in enumerate(names) if place not in found]
    if empty:
        raise BadSettings(
            f"nothing is left for {', '.join(empty)}: {len(pictures)} pictures in {len(set(units))} groups that stay whole; "
            "want more pictures, other fractions, or --by random"
        )
    rows = [
        SplitRow(picture.uri, names[chosen[unit]], group, picture.count, picture.label)
        for picture, unit, group in zip(pictures, units, groups, strict=True)
    ]
    total = sum(shares)
    return Split(tuple(sorted(rows, key=lambda row: row.path)), by, tuple(100 * share / total for share in shares), seed)


def checked_fractions(fractions: Sequence[float]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and shares of the splits. Raises BadSettings unless there are two or three shares above zero."""
    shares = tuple(float(share) for share in fractions)
    if len(shares) not in (2, 3) or not all(0 < share < float("inf") for share in shares):
        raise BadSettings(f"want fractions of train/val/test or train/test, such as 60/20/20 or 80/20, got {_slashed(shares)}")
    return (NAMES if len(shares) == 3 else (TRAIN, TEST)), shares


def leak(split: Split, labelled: LabelledSet) -> Leak:
    """What the split leaks, measured on the set's own products (not on the groups that the split's file names).

    Raises BadSource when the split names a picture that the set does not hold, or has no val and no test.
    """
    pictures = {picture.uri: picture for picture in labelled.pictures}
    missing = [row.path for row in split.rows if row.path not in pictures]
    if missing:
        raise BadSource(f"{len(missing)} pictures of the split are not in {labelled.root}; the first is {missing[0]}")
    chosen = [pictures[row.path] for row in split.rows]
    held = [place for place, row in enumerate(split.rows) if row.split != TRAIN]
    if not held:
        raise BadSource("the split has no val and no test rows, so nothing can leak into them")
    groups = product_groups(chosen)
    trained = [place for place, row in enumerate(split.rows) if row.split == TRAIN]
    trained_groups = {groups[place] for place in trained}
    trained_ties = {tie for place in trained for tie in ties_of(chosen[place])}
    trained_uris = {chosen[place].uri for place in trained}
    sisters = sister_shots(chosen)
    return Leak(
        len(held),
        sum(groups[place] in trained_groups for place in held) / len(held),
        sum(not trained_ties.isdisjoint(ties_of(chosen[place])) for place in held) / len(held),
        sum(not trained_uris.isdisjoint(sisters.get(chosen[place].uri, ())) for place in held) / len(held),
    )


def contradiction(row: SplitRow, picture: LabelledPicture | None) -> str:
    """Why a row cannot stand for the picture of its path (None: the data hold none); "" where it can."""
    if picture is None:
        return "the split names it, but the data do not hold it"
    if row.count is not None and picture.count is not None and row.count != picture.count:
        return f"the split says {row.count} items, the data say {picture.count}; make the split anew"
    if row.label is not None and picture.label is not None and row.label != picture.label:
        return f"the split says {row.label!r}, the data say {picture.label!r}; make the split anew"
    return ""


def write_split(split: Split, file: Path) -> None:
    """CSV with `path,split,group` and `count`, `label` or both; whole or not at all. Raises CannotBeDone."""
    has_count = any(row.count is not None for row in split.rows)
    has_label = any(row.label is not None for row in split.rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(["count"] if has_count else []), *(["label"] if has_label else [])])
    for row in split.rows:
        writer.writerow(
            [row.path, row.split, row.group, *([row.count] if has_count else []), *([row.label] if has_label else [])]
        )
    write_atomically(file, text.getvalue().encode())


def read_split(file: Path, *, allow_leak: bool = False) -> Split:
    """A split that a file holds. Its fractions are measured, its seed is not known.

    Raises BadSource for a file that is no split, and, unless allow_leak, for one whose groups cross from train to val or test.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = _rows(file, csv.reader(lines, strict=True))
    except OSError as error:
        raise BadSource(f"cannot read the split {file}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadSource(f"{file} is not CSV in UTF-8: {error}") from error
    crossing = crossing_groups(rows)
    if crossing and not allow_leak:
        raise BadSource(
            f"{file} leaks: {len(crossing)} groups are in train and in val or test, the first is {crossing[0]!r}; "
            "make a split with `binsight data split` (by group), or allow the leak"
        )
    counted = Counter(row.split for row in rows)
    fractions = tuple(100 * counted[name] / len(rows) for name in NAMES if counted[name])
    return Split(tuple(sorted(rows, key=lambda row: row.path)), "random" if crossing else "group", fractions, None)


def crossing_groups(rows: Iterable[SplitRow]) -> list[str]:
    """Groups with pictures in more than one split, sorted."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row.group].add(row.split)
    return sorted(group for group, splits in found.items() if len(splits) > 1)


def _rows(file: Path, lines: Iterable[list[str]]) -> list[SplitRow]:
    cells = iter(lines)
    header = next(cells, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing or len(set(header)) < len(header) or not {"count", "label"} & set(header):
        raise BadSource(f"want the columns path,split,group and count or label, each once, in {file}, got {','.join(header)}")
    rows: dict[str, SplitRow] = {}
    for number, line in enumerate(cells, start=2):
        if not line:
            continue
        if len(line) != len(header):
            raise BadSource(f"{file}: row {number} has {len(line)} cells, the header {len(header)}")
        row = _row(f"{file}: row {number}", dict(zip(header, line, strict=True)))
        if row.path in rows:
            raise BadSource(f"{file}: row {number} names {row.path} again; want every picture once")
        rows[row.path] = row
    if not rows:
        raise BadSource(f"the split {file} has no rows")
    return list(rows.values())


def _row(place: str, fields: Mapping[str, str]) -> SplitRow:
    count = fields.get("count", "")
    if fields["split"] not in NAMES:
        raise BadSource(f"{place}: want a split of train, val or test, got {fields['split']!r}")
    if not fields["path"] or not fields["group"]:
        raise BadSource(f"{place}: want a path and a group, got {fields['path']!r} and {fields['group']!r}")
    if count and not (count.isascii() and count.isdigit() and len(count) <= _DIGITS):
        raise BadSource(f"{place}: want a count that is a whole number of at least 0, got {count[:40]!r}")
    return SplitRow(
        fields["path"], fields["split"], fields["group"], int(count) if count else None, fields.get("label") or None
    )


def _stratum(picture: LabelledPicture) -> str:
    count = "" if picture.count is None else str(min(picture.count, POOLED_FROM))
    return f"{count}|{picture.label or ''}"


def _share_out(units: Sequence[str], strata: Sequence[str], shares: Sequence[float], seed: int) -> dict[str, int]:
    """The split (its place in `shares`) of each unit.

    Iterative stratification: large units first, each to the split that it brings nearest to the counts wanted of every
    stratum and of all. After Sechidis et al. 2011, "On the stratification of multi-label data", with whole groups.
    """
    contents: dict[str, Counter[str]] = defaultdict(Counter)
    for unit, stratum in zip(units, strata, strict=True):
        contents[unit][stratum] += 1
        contents[unit][ALL] += 1
    totals: Counter[str] = Counter(strata)
    totals[ALL] = len(strata)
    sum_of_shares = sum(shares)
    wanted = [{name: n * share / sum_of_shares for name, n in totals.items()} for share in shares]
    held: list[Counter[str]] = [Counter() for _ in shares]
    order = sorted(contents)
    random.Random(seed).shuffle(order)  # noqa: S311, not for secrets
    order.sort(key=lambda unit: -contents[unit][ALL].bit_length())  # stable: shuffled among those of like size
    chosen = {}
    for unit in order:
        inside = contents[unit]
        costs = [
            sum(n * (2 * (held[place][name] - want[name]) + n) / (want[name] + 1) for name, n in inside.items())
            for place, want in enumerate(wanted)
        ]  # how much nearer, or farther, each split would be: the change of sum((held − wanted)²/wanted)
        best = min(range(len(shares)), key=costs.__getitem__)
        held[best].update(inside)
        chosen[unit] = best
    return chosen


ALL = ""  # the stratum of all pictures


def _slashed(shares: Sequence[float]) -> str:
    return "/".join(f"{share:g}" for share in shares) or "nothing"
