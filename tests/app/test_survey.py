"""What is learnt of a store from its items."""

from __future__ import annotations

import random
from collections import Counter

from binsight.app.survey import Field, survey_of
from binsight.records import Item


def test_fields_have_kinds_values_and_how_many_items_have_them() -> None:
    items = [
        Item("a", {"label": "ram", "quantity": 10, "spare": True, "tags": ["x", "y"], "_source": {"root": "/r"}, "a b": 1}),
        Item("b", {"label": "fan", "quantity": 9, "note": None, "size": {"w": 1}}),
        Item("c", {"label": "ram", "quantity": 2.5}),
    ]
    assert survey_of(items, 3, random.Random(0)).fields == (
        Field("label", "text", ("fan", "ram"), 3),
        Field("quantity", "number", ("2.5", "9", "10"), 3),
        Field("spare", "yes or no", ("yes",), 1),
        Field("tags", "list", ("x", "y"), 1),
    )


def test_the_fields_of_quantity_and_place_are_known_by_their_names() -> None:
    found = survey_of([Item("a", {"Count": 3, "Shelf": "A1", "quantity": "many"})], 1, random.Random(0))
    assert (found.quantity_name, found.place_name) == ("Count", "Shelf")
    assert survey_of([], 0, random.Random(0)).quantity_name is None


def test_the_newest_come_first_and_items_without_a_file_are_none_of_them() -> None:
    items = [Item(str(n), {"_source": {"mtime_ns": time}}) for n, time in enumerate((5, 9, 1, 7))] + [Item("x")]
    assert [item.id for item in survey_of(items, 5, random.Random(0), shown=3).newest] == ["1", "3", "0"]


def test_each_item_is_as_likely_to_be_sampled() -> None:
    items = [Item(str(n)) for n in range(10)]
    drawn = Counter(item.id for seed in range(2000) for item in survey_of(items, 10, random.Random(seed), shown=3).sample)
    assert sum(drawn.values()) == 6000
    assert all(500 < drawn[str(n)] < 700 for n in range(10))  # 600 expected, 5 standard deviations are 102


def test_no_more_items_are_read_than_allowed() -> None:
    read = []
    found = survey_of((read.append(n) or Item(str(n)) for n in range(100)), 100, random.Random(0), most=7)  # type: ignore[func-returns-value]
    assert (found.looked_at, found.total, len(read)) == (7, 100, 7)
