"""Many photos against the books: count each, and sort by how far the count contradicts what is recorded."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from binsight.app.survey import QUANTITY_NAMES
from binsight.audit import checked_quantity, disagreement, is_in_interval, is_likeliest
from binsight.counting import interval_in_words, likeliest_in_words
from binsight.data.source import Picture, Refusal
from binsight.errors import BadImage, BadSettings, BadSource
from binsight.records import Count

COLUMNS = ("id", "recorded", "seen", "verdict", "disagreement", "interval", "photo")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for a formula at the start of a cell


@dataclass(frozen=True, slots=True)
class Checked:
    """One photo: what is recorded of it and what was seen. disagreement: 1 − P(recorded)."""

    id: str
    path: str
    uri: str
    recorded: int
    count: Count
    disagreement: float

    @property
    def verdict(self) -> str:
        """In one or two words, for a table."""
        if is_likeliest(self.count, self.recorded):
            return "agrees"
        return "may agree" if is_in_interval(self.count, self.recorded) else "disagrees"

    @property
    def seen(self) -> str:
        """What the photo most likely shows."""
        return likeliest_in_words(self.count)

    @property
    def row(self) -> tuple[str, int, str, str, float, str, str]:
        """As `COLUMNS` name it."""
        interval = interval_in_words(self.count)
        return self.id, self.recorded, self.seen, self.verdict, round(self.disagreement, 3), interval, self.uri


def quantity_column(pictures: Sequence[Picture], asked_for: str) -> str:
    """The manifest's field that holds the recorded quantity: the one asked for, else the first with a usual name.

    Raises BadSource, naming the fields there are, when there is none.
    """
    names = list(dict.fromkeys(name for picture in pictures for name in picture.metadata if name != "path"))
    wanted = [asked_for.strip()] if asked_for.strip() else [name for name in QUANTITY_NAMES if name in names]
    if not wanted or wanted[0] not in names:
        told = ", ".join(names[:20]) or "none beside path"
        what = (
            f"a column {asked_for.strip()!r}"
            if asked_for.strip()
            else f"a column {', '.join(QUANTITY_NAMES[:3])}, or a name for it"
        )
        raise BadSource(f"want {what} in the manifest, with the recorded quantity; its columns are: {told}")
    return wanted[0]


def checked(pictures: Iterable[Picture], column: str, count_of: Callable[[str], Count]) -> Iterator[Checked | Refusal]:
    """Each picture in turn, against what its row says. count_of: of the photo at a path; it may raise BadImage."""
    for picture in pictures:
        try:
            recorded = checked_quantity(picture.metadata.get(column))
        except BadSettings as error:
            yield Refusal(picture.uri, f"{error} in the column {column}")
            continue
        try:
            count = count_of(picture.path)
        except BadImage as error:
            yield Refusal(picture.uri, str(error))
            continue
        yield Checked(picture.id, picture.path, picture.uri, recorded, count, disagreement(count, recorded))


def by_disagreement(found: Iterable[Checked]) -> list[Checked]:
    """What contradicts the books most comes first; equals in order of id.

    >>> by_disagreement([])
    []
    """
    return sorted(found, key=lambda one: (-one.disagreement, one.id))


def csv_text(found: Iterable[Checked], refused: Iterable[Refusal]) -> str:
    """The table as CSV; photos that were refused stand at its end, with the reason.

    A text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*COLUMNS, "expected", "error"])
    for one in found:
        writer.writerow([*(_inert(cell) for cell in one.row), round(one.count.expected, 3), ""])
    for refusal in refused:
        writer.writerow([""] * (len(COLUMNS) - 1) + [_inert(refusal.path), "", _inert(refusal.error)])
    return out.getvalue()


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def said_of_check(found: Sequence[Checked], refused: Sequence[Refusal]) -> str:
    """What became of a check, in a sentence or two."""
    if not found and not refused:
        return "The manifest names no photos."
    wrong = sum(one.verdict == "disagrees" for one in found)
    photos = "One photo was" if len(found) == 1 else f"{len(found)} photos were"
    told = f"{photos} checked: {wrong} disagree{'s' if wrong == 1 else ''} with the books."
    if not refused:
        return told
    first = refused[0]
    many = f"{len(refused)} rows or photos were" if len(refused) > 1 else "One row or photo was"
    return f"{told} {many} refused; the first: {first.path}: {first.error}"
