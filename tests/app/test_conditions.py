"""Filters from what is chosen on the screen: their texts, and that they let through what is meant."""

from __future__ import annotations

import random

import pytest

from binsight.app.conditions import Choices, Line, choices_of, where_of
from binsight.app.survey import survey_of
from binsight.errors import BadFilter, BadSettings
from binsight.filters import Filter
from binsight.records import Item

ITEMS = [
    Item("a", {"label": "ram", "quantity": 4, "spare": True, "tags": ["new", 7], "name": 'DDR "4"'}),
    Item("b", {"label": "disk", "quantity": 1, "spare": False, "tags": ["old"]}),
    Item("c", {"label": "fan", "quantity": 9, "tags": []}),
]
SURVEY = survey_of(ITEMS, 3, random.Random(0))


def passing(*lines: Line, typed: str = "") -> str:
    where = where_of(lines, typed, SURVEY)
    assert where is not None
    return "".join(item.id for item in ITEMS if Filter(where).matches(item.metadata))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (Line("label", "is", ("ram",)), "a"),
        (Line("label", "is", ("ram", "fan")), "ac"),
        (Line("label", "is not", ("ram", "fan")), "b"),
        (Line("name", "is", ('DDR "4"',)), "a"),
        (Line("quantity", "at least", ("4",)), "ac"),
        (Line("quantity", "at most", ("4",)), "ab"),
        (Line("quantity", "is", (" 9 ",)), "c"),
        (Line("spare", "is", ("no",)), "b"),
        (Line("tags", "is", ("new", "old")), "ab"),
        (Line("tags", "is", ("7",)), "a"),
        (Line("tags", "is not", ("new",)), "bc"),
        (Line("unknown", "is not", ("x",)), "abc"),
        (Line("quantity_2", "at least", ("1",)), ""),
    ],
)
def test_a_line_lets_through_what_it_says(line: Line, wanted: str) -> None:
    assert passing(line) == wanted


def test_lines_and_a_typed_filter_hold_together() -> None:
    least = Line("quantity", "at least", ("1",))
    assert passing(least, Line("label", "is not", ("fan",)), typed='label = "ram" or label = "fan"') == "a"
    assert passing(typed="quantity = 1 or quantity = 9") == "bc"


def test_lines_that_are_not_filled_in_do_not_count() -> None:
    assert where_of([Line(None, "is", ("x",)), Line("label", "is", ())], "  ", SURVEY) is None


def test_what_cannot_be_a_filter_is_told() -> None:
    with pytest.raises(BadFilter, match="want a number for quantity, got 'many'"):
        where_of([Line("quantity", "is", ("many",))], "", SURVEY)
    with pytest.raises(BadFilter, match="want one value for quantity at least, got 2"):
        where_of([Line("quantity", "at least", ("1", "2"))], "", SURVEY)
    with pytest.raises(BadFilter):
        where_of([], 'label == "ram"', SURVEY)


def test_what_the_widgets_say_is_read() -> None:
    nothing: list[object] = [None, "is", []] * 2
    assert choices_of(SURVEY, 12, 0, "", None, "is", [], *nothing) == Choices(12, 0.0, None)
    shown = choices_of(SURVEY, 48, -1, "quantity > 1", " label ", "is not", ["ram"], *nothing)
    assert shown == Choices(48, -1.0, 'not label = "ram" and (quantity > 1)')


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ((None, 0, ""), "want how many to show from 1 to 48, got nothing"),
        ((10**9, 0, ""), "want how many to show from 1 to 48, got 1000000000"),
        (("many", 0, ""), "want how many to show from 1 to 48, got many"),
        ((float("nan"), 0, ""), "want how many to show from 1 to 48, got nan"),
        ((12, None, ""), "want a score cut-off from -1 to 1, got nothing"),
        ((12, 5, ""), "want a score cut-off from -1 to 1, got 5"),
        ((12, True, ""), "want a score cut-off from -1 to 1, got True"),
    ],
)
def test_a_browser_may_send_anything_and_is_told_what_is_wrong(told: tuple[object, ...], wanted: str) -> None:
    with pytest.raises(BadSettings, match=wanted):
        choices_of(SURVEY, *told)


def test_fields_and_values_that_no_screen_would_send_are_refused_or_count_as_none() -> None:
    assert choices_of(SURVEY, 1, 0, ["x"], {"a": 1}, {"b": 2}, 5).where is None
    assert choices_of(SURVEY, 1, 0, None, "label", "what?", [{"a": 1}]).where == """label = "{'a': 1}\""""
    with pytest.raises(BadFilter, match="want a field's name of A-Z a-z 0-9 _ that begins with no digit, got 'x = 1 or label'"):
        choices_of(SURVEY, 1, 0, "", "x = 1 or label", "is", ["ram"])
    with pytest.raises(BadFilter, match="want at most 100 values for a field, got 20,000"):
        choices_of(SURVEY, 1, 0, "", "label", "is", ["ram"] * 20_000)
