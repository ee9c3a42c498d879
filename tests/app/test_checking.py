"""Many photos against the books."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from binsight.app.checking import Checked, by_disagreement, checked, csv_text, quantity_column, said_of_check
from binsight.data.source import Picture, Refusal
from binsight.errors import BadSource
from binsight.records import Count
from tests.count_fakes import STEP, counting_encoder
from tests.fakes import paint


def count_of(path: str) -> Count:
    counts = counting_encoder().encode([path]).counts
    assert counts is not None
    return counts[0]


def pictures(root: Path, told: dict[str, tuple[int, object]]) -> list[Picture]:
    """NAME: (items that the picture shows, what the books say)."""
    found = []
    for name, (items, recorded) in told.items():
        paint(root / f"{name}.png", (items * STEP, 30, 10))
        found.append(Picture(name, str(root), f"{name}.png", {"path": f"{name}.png", "quantity": recorded}))
    return found


def test_the_largest_disagreement_comes_first(tmp_path: Path) -> None:
    """The fake sees n items with probability 0.8 and n + 1 with 0.2; its interval holds both."""
    rows = pictures(tmp_path, {"a": (2, 2), "b": (2, 3), "c": (2, 5), "d": (0, 0)})
    found = [one for one in checked(rows, "quantity", count_of) if not isinstance(one, Refusal)]
    ordered = by_disagreement(found)
    assert [one.id for one in ordered] == ["c", "b", "a", "d"]
    assert [one.disagreement for one in ordered] == pytest.approx([1.0, 0.8, 0.2, 0.2], abs=1e-6)
    assert [one.verdict for one in ordered] == ["disagrees", "may agree", "agrees", "agrees"]
    assert said_of_check(ordered, []) == "4 photos were checked: 1 disagrees with the books."


def test_more_than_the_model_tells_apart_is_seen_as_more() -> None:
    many = Count(9, 8.0, (*[0.05] * 9, 0.15), 0.4, 8, 10)
    rows = [Checked("a", "a.png", "a.png", recorded, many, 0.0) for recorded in (9, 15)]
    assert [(one.seen, one.verdict) for one in rows] == [("more than 9", "may agree"), ("more than 9", "agrees")]


def test_what_cannot_be_checked_is_named_and_stops_nothing(tmp_path: Path) -> None:
    rows = pictures(tmp_path, {"a": (1, "many"), "b": (1, 1), "c": (1, 1), "d": (1, None)})
    (tmp_path / "c.png").write_bytes(b"no picture")
    answers = list(checked(rows, "quantity", count_of))
    refused = {one.path: one.error for one in answers if isinstance(one, Refusal)}
    assert refused.keys() == {"a.png", "c.png", "d.png"}
    assert refused["a.png"] == "want a quantity that is a whole number of at least 0, got 'many' in the column quantity"
    found = [one for one in answers if not isinstance(one, Refusal)]
    assert [one.id for one in found] == ["b"]
    said = said_of_check(found, [Refusal("a.png", "why")])
    assert said == "One photo was checked: 0 disagree with the books. One row or photo was refused; the first: a.png: why"


def test_the_column_of_the_recorded_quantity_is_found_or_asked_for(tmp_path: Path) -> None:
    rows = [Picture("a", "/r", "a.jpg", {"path": "a.jpg", "Stück": 3, "count": 4, "quantity": 5})]
    assert quantity_column(rows, "") == "quantity"
    assert quantity_column(rows, " Stück ") == "Stück"
    with pytest.raises(BadSource, match=r"want a column 'pieces' .* its columns are: Stück, count, quantity"):
        quantity_column(rows, "pieces")
    with pytest.raises(BadSource, match="want a column quantity, count, stock, or a name for it"):
        quantity_column([Picture("a", "/r", "a.jpg", {"path": "a.jpg"})], "")


def test_the_csv_reads_back_and_holds_no_formula(tmp_path: Path) -> None:
    rows = pictures(tmp_path, {"=1+1": (2, 3)})
    found = [one for one in checked(rows, "quantity", count_of) if not isinstance(one, Refusal)]
    table = list(csv.DictReader(io.StringIO(csv_text(found, [Refusal("b.png", "an empty file")]))))
    assert table[0] | {"expected": ""} == {
        "id": "'=1+1", "recorded": "3", "seen": "2", "interval": "2 to 3", "disagreement": "0.8", "verdict": "may agree",
        "photo": "'=1+1.png", "expected": "", "error": "",
    }  # fmt: skip
    assert (table[1]["photo"], table[1]["error"], table[1]["seen"]) == ("b.png", "an empty file", "")
