"""Fields that a filter asks for and no item has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from binsight.fields import absent_fields
from binsight.filters import Filter
from binsight.records import Item, Metadata
from binsight.store import VectorStore, open_store
from binsight.vectors import normalise
from tests.fakes import mean_colour_encoder


def filled(records: Sequence[Metadata]) -> VectorStore:
    store = open_store("exact:", create=mean_colour_encoder().info)
    for number, metadata in enumerate(records):
        store.upsert([Item(str(number), metadata)], normalise(np.array([[1.0, number, 0.0]])))
    return store


def test_a_field_that_no_item_has_is_named_with_those_there_are() -> None:
    store = filled([{"label": "ram", "_source": {}}, {"quantity": None, "two words": 1}])
    assert absent_fields(store, Filter('lable = "ram"')) == "no item has a field 'lable'; there are label, quantity"
    wrong = Filter('not (lable = "ram" or shelf has 1) and quantity > 2')
    assert absent_fields(store, wrong) == "no item has a field 'lable' or 'shelf'; there are label, quantity"
    assert absent_fields(filled([{"label": 1}]), Filter("a = 1")) == "no item has a field 'a'; there is label"
    assert absent_fields(filled([{}]), Filter("a = 1")) == "no item has a field 'a'; there is none"


def test_nothing_is_said_where_some_item_has_each_field_or_there_is_no_item() -> None:
    store = filled([{"label": "ram"}, {"quantity": 2}])
    assert absent_fields(store, Filter('label = "cpu" and quantity in (7)')) == ""
    assert absent_fields(filled([]), Filter("a = 1")) == ""


def test_of_a_large_store_only_the_first_items_are_looked_at_and_the_sentence_says_so() -> None:
    store = filled([{"label": n} for n in range(30)] + [{"shelf": "A1"}])
    told = "none of the first 30 items has a field 'shelf'; there is label"
    assert absent_fields(store, Filter("shelf = 1"), most=30) == told
    assert absent_fields(store, Filter("shelf = 1"), most=31) == ""
    many = filled([{f"f{n:02}": n for n in range(25)}])
    wanted = ", ".join(f"f{n:02}" for n in range(20))
    assert absent_fields(many, Filter("x = 1")) == f"no item has a field 'x'; there are {wanted} and 5 others"
