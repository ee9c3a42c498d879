"""What the screens say."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from binsight.app.survey import Field, Survey, survey_of
from binsight.app.wording import (
    caption,
    distribution,
    match_rows,
    record_rows,
    said_of,
    said_of_books,
    said_of_count,
    said_of_like,
    said_of_survey,
    sentence_of,
    store_rows,
)
from binsight.errors import BadSettings, BinsightError, StoreDamaged, StoreUnavailable
from binsight.records import Answer, Count, Item, Match, StoreInfo

RAM = Item(
    "RAM-1",
    {
        "label": "ram",
        "quantity": 4,
        "shelf": "A1",
        "tags": ["x", "y"],
        "none": None,
        "_source": {"root": "/srv", "uri": "a.jpg"},
    },
)
FAN = Item("FAN-2", {"label": "fan"})
FOUND = Answer([Match(RAM, 0.913), Match(FAN, 0.42)])
COUNT = Count(value=2, expected=1.75, probabilities=(0.05, 0.1, 0.6, 0.05), more=0.2, low=1, high=2)


def test_a_caption_tells_score_id_label_stock_and_place() -> None:
    survey = survey_of([RAM], 1, random.Random(0))
    assert caption(FOUND.matches[0], survey) == "0.91 · RAM-1 · ram · quantity 4 · shelf A1"
    assert caption(FOUND.matches[1], survey) == "0.42 · FAN-2 · fan"


def test_matches_are_told_by_their_scores_and_not_as_alike() -> None:
    assert said_of(FOUND, min_score=0.5, where=None, total=2) == "The nearest item is RAM-1, with a score of 0.91."
    told = "RAM-1, with a score of 0.91; 1 more, down to 0.42."
    assert said_of(FOUND, min_score=0.0, where=None, total=2) == f"The nearest item is {told}"
    assert said_of_like(FOUND.matches, "RAM-2") == f"Nearest to RAM-2 is {told}"


@pytest.mark.parametrize(
    ("answer", "where", "total", "wanted"),
    [
        (FOUND, None, 2, "Nothing in the store is near enough: the nearest item, RAM-1, has a score of 0.91, and"),
        (Answer([]), "quantity > 9", 2, "No item of the store passes the filter quantity > 9. Loosen it."),
        (Answer([]), None, 0, "The store holds no items yet, so nothing can be found in it."),
    ],
)  # fmt: skip
def test_that_nothing_was_found_is_told_with_its_reason(answer: Answer, where: str | None, total: int, wanted: str) -> None:
    assert said_of(answer, min_score=0.95, where=where, total=total).startswith(wanted)


def test_a_record_shows_every_field_and_not_where_the_server_keeps_its_files() -> None:
    assert record_rows(RAM) == [
        ("id", "RAM-1"), ("label", "ram"), ("quantity", "4"), ("shelf", "A1"), ("tags", "x, y"), ("none", "–"),
        ("picture", "a.jpg"),
    ]  # fmt: skip
    assert match_rows(FOUND.matches)[1] == ("0.420", "FAN-2", "label fan")


def test_a_record_names_its_file_once_and_lists_in_words() -> None:
    contents = [{"asin": "B0", "quantity": 2, "sizes": {"in": [1]}}, {"asin": "B1"}]
    item = Item("1", {"path": "a.jpg", "contents": contents, "_source": {"root": "/srv", "uri": "a.jpg"}})
    assert record_rows(item) == [
        ("id", "1"), ("path", "a.jpg"), ("contents", 'asin B0, quantity 2, sizes {"in": [1]}; asin B1'),
    ]  # fmt: skip


def test_a_count_is_told_with_its_certainty_and_interval() -> None:
    assert said_of_count(COUNT) == "The photo most likely shows 2 items (60% sure); the interval is 1 to 2."


def test_a_photo_of_more_than_the_model_tells_apart_is_not_said_to_show_fewer() -> None:
    open_ended = Count(1, 1.0, (0.1, 0.4), 0.5, 1, 2)
    assert said_of_count(open_ended) == (
        "The photo most likely shows more than 1 items (50% sure), else 1 item (40%); the interval is 1 to more than 1."
    )
    assert said_of_books(open_ended, 1).startswith("They may agree: the books say 1, which the interval holds,")
    assert said_of_books(open_ended, 6).startswith("They agree: the books say 6, and the photo shows 6 (or any number above 1)")


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [
        (2, "They agree: the books say 2, and the photo shows 2 with a probability of 60%."),
        (1, "They may agree: the books say 1, which the interval holds, with a probability of 10%."),
        (3, "They disagree: the books say 3, but the photo shows 3 with a probability of 5% only."),
        (7, "They disagree: the books say 7, but the photo shows 7 (or any number above 3) with a probability of 20% only."),
    ],
)
def test_count_and_books_are_compared_in_a_sentence(recorded: int, wanted: str) -> None:
    assert said_of_books(COUNT, recorded) == wanted


def test_the_distribution_ends_with_more() -> None:
    assert distribution(COUNT) == [("0", 0.05), ("1", 0.1), ("2", 0.6), ("3", 0.05), (">3", 0.2)]


def test_a_store_is_told_in_rows_and_not_where_it_lies() -> None:
    info = StoreInfo(
        3,
        "f" * 64,
        "local-dir:/srv/resnet50",
        items=1234,
        detail={"index_kind": "hnsw", "index": {"kind": "ivf", "rows": 3}, "path": "/srv/parts.store"},
    )
    rows = dict(store_rows(info, "the store parts.store"))
    assert (rows["items"], rows["model"], rows["index kind"], rows["made"]) == ("1,234", "resnet50", "hnsw", "not known")
    assert rows["index"] == "kind ivf, rows 3"
    assert not any("/srv" in value for value in rows.values())


def test_a_survey_tells_what_was_looked_at() -> None:
    fields = (Field("label", "text", ("ram",), 5),)
    assert said_of_survey(Survey(5, 5, fields)) == "The store holds 5 items; fields to filter by are label."
    assert said_of_survey(Survey(0, 0)) == "The store holds no items yet."
    some = Survey(70_000, 20_000, fields)
    assert said_of_survey(some) == (
        "The store holds 70,000 items. Of these 20,000 were looked at (the first): fields to filter by are label; "
        "there may be others."
    )
    assert "(some, near a few random vectors, since a server lists nothing)" in said_of_survey(replace(some, is_listed=False))


def test_an_empty_survey_names_no_fields() -> None:
    assert (Survey(0, 0).quantity_name, Survey(0, 0).place_name) == (None, None)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (BadSettings("want k from 1 to 48, got /srv/x"), "That cannot be done as asked: want k from 1 to 48, got /srv/x."),
        (
            StoreDamaged("/srv/a b/parts.store cannot be opened: '/srv/stores/parts.store'; restore it"),
            "That cannot be done now: a b/parts.store cannot be opened: 'parts.store'; restore it.",
        ),
        (
            StoreUnavailable("redis://cache:6379/0 does not answer"),
            "That cannot be done now: redis://cache:6379/0 does not answer.",
        ),
        (OSError(28, "No space left on device", "/srv/app/x"), "That cannot be done now: No space left on device."),
    ],
)
def test_an_error_is_a_sentence_that_names_no_folder_of_the_server(error: BinsightError | OSError, wanted: str) -> None:
    assert sentence_of(error) == wanted
