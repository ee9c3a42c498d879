"""Which layers stay in float32, and the pictures on which that is measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from binsight import mixed_precision
from binsight.mixed_precision import choose, dead_leaves

UNITS = [frozenset({"a1", "a2"}), frozenset({"b"}), frozenset({"c"})]
GAINS = {"a1": 0.0005, "a2": 0.0005, "b": 0.003, "c": 0.0001}


def kept_by(pure: float) -> tuple[str, frozenset[str]]:
    """What is chosen when all of it in bfloat16 gives this cosine, and what was kept last."""
    asked: list[frozenset[str]] = []

    def cosine(kept: Iterable[str]) -> float:
        asked.append(frozenset(kept))
        return pure + sum(GAINS[name] for name in asked[-1])

    return choose(UNITS, cosine), asked[-1]


def test_a_network_that_does_not_mind_is_not_searched() -> None:
    assert kept_by(0.9992) == ("bf16", frozenset())


def test_the_layers_that_gain_most_are_kept_until_it_is_enough() -> None:
    assert kept_by(0.9965) == ("mixed", frozenset({"b"}))
    assert kept_by(0.9955) == ("mixed", frozenset({"a1", "a2", "b"}))
    assert kept_by(0.99495) == ("mixed", frozenset({"a1", "a2", "b", "c"}))


def test_a_network_for_which_nothing_is_enough_is_run_in_float32() -> None:
    assert kept_by(0.98)[0] == "fp32"


def test_units_are_a_depthwise_convolution_and_the_one_after_it(tmp_path: Path) -> None:
    kinds = [
        "Parameter",
        "Convolution",
        "Clamp",
        "GroupConvolution",
        "Const",
        "Add",
        "Convolution",
        "Add",
        "Convolution",
        "Add",
    ]
    layers = "".join(f'<layer id="{i}" name="{kind}{i}" type="{kind}"/>' for i, kind in enumerate([*kinds, *kinds[3:7]]))
    (tmp_path / "m.xml").write_text(f"<net><layers>{layers}</layers></net>")
    assert mixed_precision._units(tmp_path / "m.xml") == [
        {"GroupConvolution3", "Add5", "Convolution6", "Add7"},
        {"GroupConvolution10", "Add12", "Convolution13"},
    ]


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
