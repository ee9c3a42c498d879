"""A picture, a vector or an id in; the similar items out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from binsight.errors import BadFilter, BadImage, BadSettings, BadVectors, ModelMismatch, UnknownItem
from binsight.records import Item
from binsight.search import Searcher
from binsight.store import open_store
from tests.fakes import by_hand, mean_colour_encoder, paint

COLOURS = {"red": (200, 0, 0), "dark red": (120, 10, 10), "green": (0, 200, 0), "blue": (0, 0, 200)}


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    encoder = mean_colour_encoder()
    searcher = Searcher(encoder, open_store("exact:", create=encoder.info))
    items = [Item(name, {"warm": "red" in name, "rank": rank}) for rank, name in enumerate(COLOURS)]
    searcher.add(items, [paint(tmp_path / f"{name}.png", colour) for name, colour in COLOURS.items()])
    return searcher


def names(answer: object) -> list[str]:
    return [match.item.id for match in answer.matches]  # type: ignore[attr-defined]


def test_a_picture_finds_the_nearest_colours_with_scores_worked_out_by_hand(searcher: Searcher, tmp_path: Path) -> None:
    answer = searcher.by_image(paint(tmp_path / "query.png", (200, 0, 0)), k=2)
    assert names(answer) == ["red", "dark red"]
    wanted = [1.0, float(by_hand((200, 0, 0)) @ by_hand((120, 10, 10)))]
    assert [match.score for match in answer.matches] == pytest.approx(wanted, abs=1e-6)
    assert (answer.count, answer.labels) == (None, None)


def test_path_bytes_image_and_array_are_the_same_picture(searcher: Searcher, tmp_path: Path) -> None:
    path = paint(tmp_path / "query.png", (90, 90, 10))
    pixels = np.full((16, 16, 3), (90, 90, 10), np.uint8)
    answers = [searcher.by_image(one) for one in (path, str(path), path.read_bytes(), Image.open(path), pixels)]
    assert all(answer == answers[0] for answer in answers)


def test_a_vector_is_normalised_and_searched(searcher: Searcher) -> None:
    assert names(searcher.by_vector([0.0, 5.0, 0.0], k=1)) == ["green"]
    assert searcher.by_vector(np.array([0.0, 0.0, 2.0])).matches[0].item.id == "blue"


@pytest.mark.parametrize("bad", [[1.0, 2.0], [[1.0, 2.0, 3.0]], [0.0, 0.0, 0.0], [1.0, float("nan"), 0.0], ["a", "b", "c"]])
def test_a_vector_without_a_direction_or_of_another_length_is_refused(searcher: Searcher, bad: list[float]) -> None:
    with pytest.raises(BadVectors):
        searcher.by_vector(bad)


def test_an_id_leaves_the_item_itself_out(searcher: Searcher) -> None:
    assert names(searcher.by_id("red", k=1)) == ["dark red"]
    assert len(searcher.by_id("red", k=10).matches) == 3
    with pytest.raises(UnknownItem, match="'pink'"):
        searcher.by_id("pink")


def test_an_id_outside_the_filter_still_gets_k_matches(searcher: Searcher) -> None:
    assert names(searcher.by_id("green", k=2, where="warm = true")) == ["dark red", "red"]


def test_where_and_min_score_cut_off(searcher: Searcher) -> None:
    assert sorted(names(searcher.by_vector([1, 0, 0], where="warm = false"))) == ["blue", "green"]
    assert names(searcher.by_vector([1, 0, 0], min_score=0.9)) == ["red", "dark red"]
    with pytest.raises(BadFilter):
        searcher.by_vector([1, 0, 0], where="warm is true")
    for bad in (1.5, float("nan"), "high"):
        with pytest.raises(BadSettings, match="min_score from -1 to 1"):
            searcher.by_vector([1, 0, 0], min_score=bad)  # type: ignore[arg-type]


def test_a_bad_picture_is_refused_with_its_reason(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(BadImage):
        searcher.by_image(b"no picture")
    with pytest.raises(BadImage, match=r"nothing\.jpg"):
        searcher.by_image(tmp_path / "nothing.jpg")


def test_adding_wants_a_picture_for_each_item(searcher: Searcher) -> None:
    with pytest.raises(BadSettings, match="1 images for 2 items"):
        searcher.add([Item("a"), Item("b")], [np.zeros((2, 2, 3), np.uint8)])
    searcher.add([], [])
    assert len(searcher.store) == 4


def test_another_model_is_refused_with_both_fingerprints() -> None:
    first, second = mean_colour_encoder("1" * 64), mean_colour_encoder("2" * 64)
    with pytest.raises(ModelMismatch, match=f"{'1' * 64}.*{'2' * 64}"):
        Searcher(second, open_store("exact:", create=first.info))


def test_without_an_encoder_only_pictures_are_refused(searcher: Searcher) -> None:
    blind = Searcher(None, searcher.store)
    assert names(blind.by_id("red", k=1)) == ["dark red"]
    with pytest.raises(BadSettings, match="no encoder"):
        blind.by_image(b"")


def test_an_id_may_ask_for_as_many_as_a_query_may(searcher: Searcher) -> None:
    assert len(searcher.by_id("red", k=100_000).matches) == 3
    for bad in (True, 0, 100_001, 1.0):
        with pytest.raises(BadSettings, match="k from 1 to 100000"):
            searcher.by_id("red", k=bad)  # type: ignore[arg-type]


def test_a_vector_of_any_finite_length_has_a_direction(searcher: Searcher) -> None:
    for scale in (1e300, 1e-300, 1e39, 1e-50, 7):
        answer = searcher.by_vector([0.0, scale, 0.0], k=1)
        assert names(answer) == ["green"]
        assert answer.matches[0].score == pytest.approx(float(by_hand((0, 200, 0))[1]), abs=1e-6)


@pytest.mark.parametrize(
    "bad", [[1j, 0, 0], ["1", "0", "0"], [[1.0], [1.0, 2.0]], [True, False, False], [None, 1, 2], [10**400, 0, 0]]
)
def test_a_vector_of_other_things_than_real_numbers_is_refused(searcher: Searcher, bad: list[object]) -> None:
    with pytest.raises(BadVectors):
        searcher.by_vector(bad)  # type: ignore[arg-type]


def test_min_score_is_any_real_number_but_no_truth_value(searcher: Searcher) -> None:
    for score in (np.float32(0.9), np.float64(0.9)):
        assert names(searcher.by_vector([1, 0, 0], min_score=score)) == ["red", "dark red"]  # type: ignore[arg-type]
    for bad in (True, False, np.bool_(True), 0.5j):
        with pytest.raises(BadSettings, match="min_score from -1 to 1"):
            searcher.by_vector([1, 0, 0], min_score=bad)  # type: ignore[arg-type]
