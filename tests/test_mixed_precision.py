"""Which layers stay in float32, and the pictures on which that is measured."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from binsight import mixed_precision
from binsight.mixed_precision import agreement, choose, dead_leaves

UNITS = [frozenset({"a1", "a2"}), frozenset({"b"}), frozenset({"c"})]
GAINS = {"a1": 0.0005, "a2": 0.0005, "b": 0.003, "c": 0.0002}


def kept_by(pure: float) -> tuple[str, frozenset[str]]:
    """What is chosen when all of it in bfloat16 gives this cosine, and what is kept."""
    return choose(UNITS, lambda kept: pure + sum(GAINS[name] for name in kept))


def test_a_network_that_does_not_mind_is_not_searched() -> None:
    asked: list[frozenset[str]] = []

    def cosine(kept: frozenset[str]) -> float:
        asked.append(kept)
        return 0.9992

    assert choose(UNITS, cosine) == ("bf16", frozenset())
    assert asked == [frozenset()]


def test_the_fewest_layers_are_kept_from_the_input_on() -> None:
    assert kept_by(0.9982) == ("mixed", frozenset({"a1", "a2"}))
    assert kept_by(0.9970) == ("mixed", frozenset({"a1", "a2", "b"}))
    assert kept_by(0.9949) == ("mixed", frozenset({"a1", "a2", "b", "c"}))


def test_a_network_for_which_nothing_is_enough_is_run_in_float32() -> None:
    assert kept_by(0.98) == ("fp32", frozenset())
    assert choose([], lambda kept: 0.99) == ("fp32", frozenset())


@pytest.mark.parametrize("needed", range(1, 21))
def test_the_search_is_short(needed: int) -> None:
    units = [frozenset({str(number)}) for number in range(20)]
    asked: list[int] = []

    def cosine(kept: frozenset[str]) -> float:
        asked.append(len(kept))
        return 0.9995 if asked[-1] >= needed else 0.99

    assert choose(units, cosine) == ("mixed", frozenset(map(str, range(needed))))
    assert len(asked) <= 6
    assert len(set(asked)) == len(asked)


def test_units_begin_at_a_depthwise_convolution_and_the_first_at_the_input(tmp_path: Path) -> None:
    kinds = [
        "Parameter",
        "Convolution",
        "Clamp",
        "GroupConvolution",
        "Const",
        "Convolution",
        "GroupConvolution",
        "Add",
        "Result",
    ]
    layers = "".join(f'<layer id="{i}" name="{kind}{i}" type="{kind}"/>' for i, kind in enumerate(kinds))
    edges = "".join(
        f'<edge from-layer="{start}" to-layer="{end}"/>' for start, end in itertools.pairwise((0, 1, 2, 3, 5, 6, 7, 8))
    )
    net = f"<net><layers>{layers}</layers><edges>{edges}<edge from-layer='4' to-layer='5'/></edges></net>"
    (tmp_path / "m.xml").write_text(net)
    assert mixed_precision._units(tmp_path / "m.xml") == [
        {"Convolution1", "Clamp2", "GroupConvolution3", "Convolution5"},
        {"GroupConvolution6", "Add7"},
    ]
    (tmp_path / "m.xml").write_text(net.replace("Group", ""))
    assert mixed_precision._units(tmp_path / "m.xml") == []


def test_a_unit_of_networks_side_by_side_holds_what_is_as_far_from_the_input_in_each(tmp_path: Path) -> None:
    kinds = ["Parameter", "GroupConvolution", "Clamp", "GroupConvolution", "Convolution", "GroupConvolution", "Clamp", "Concat"]
    edges = ((0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (3, 7), (6, 7))
    layers = "".join(f'<layer id="{i}" name="{i}" type="{kind}"/>' for i, kind in enumerate(kinds))
    joined = "".join(f'<edge from-layer="{start}" from-port="0" to-layer="{end}" to-port="0"/>' for start, end in edges)
    (tmp_path / "m.xml").write_text(f"<net><layers>{layers}</layers><edges>{joined}</edges></net>")
    assert mixed_precision._units(tmp_path / "m.xml") == [{"1", "2", "4", "5", "6"}, {"3", "7"}]


@pytest.mark.parametrize("size", [(224, 224), (5, 3), (31, 97)])
def test_the_pictures_are_always_the_same_and_of_the_size(size: tuple[int, int]) -> None:
    pictures = dead_leaves(2, size)
    assert pictures.shape == (2, *size, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, dead_leaves(3, size)[:2])
    assert not np.array_equal(pictures[0], pictures[1])


def test_the_pictures_have_the_spectrum_of_photos() -> None:
    """Power falls with the square of the frequency, roughly: a slope of −2 against noise's 0 (Ruderman and Bialek 1994)."""
    grey = dead_leaves(8, (256, 256)).mean(axis=3) - 127
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    band = (frequency > 0.02) & (frequency < 0.2)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -3.2 < slope < -1.5


def test_vectors_agree_by_their_cosine_and_logits_by_their_share_of_error() -> None:
    vectors = np.array([[3, 4], [0, 2]], np.float32)
    turned = np.array([[4, 3], [0, 7]], np.float32)  # cosines 24 / 25 and 1
    assert agreement([turned], [vectors]) == pytest.approx(0.98)
    logits = np.array([[101, 0], [99, 0]], np.float32)  # a square of 2 around their means
    assert agreement([vectors, logits], [vectors, logits]) == pytest.approx(1)
    near = logits + np.array([[0.2, 0], [0, 0]], np.float32)
    assert agreement([vectors, near], [vectors, logits]) == pytest.approx(1 - 0.5 * 0.04 / 2)
    assert agreement([vectors, logits + 1], [vectors, logits]) == pytest.approx(1 - 0.5 * 4 / 2)  # though nearly parallel
