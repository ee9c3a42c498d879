"""The built-in model that learned nothing: what moves its vectors, what does not, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from binsight import descriptor, vectors
from binsight.data.parts import catalogue
from binsight.data.warehouse import bin_photo, catalogue_photo, fill_bins
from binsight.descriptor import PREPROCESS, ColourLayout, Parameters
from binsight.encoder import load_encoder


def scene(angle: float = 0.0) -> NDArray[np.uint8]:
    """A red bar and a blue disc on grey, turned around the middle."""
    image = Image.new("RGB", (192, 192), "#b0b0b0")
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 80, 140, 110), fill="#c03020")
    draw.ellipse((90, 30, 120, 60), fill="#3040c0")
    turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor="#b0b0b0")
    return PREPROCESS.pixels(turned)


def lit(pixels: NDArray[np.uint8], *gains: float) -> NDArray[np.uint8]:
    return np.asarray(np.clip(pixels * np.array(gains), 0, 255), np.uint8)


def cosine(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    first, second = vectors.normalise(ColourLayout().run(np.stack([a, b])))
    return float(first @ second)


def test_the_light_hardly_matters_but_the_thing_does() -> None:
    other = scene()[..., [1, 2, 0]]  # the same edges in other colours
    assert cosine(scene(), lit(scene(), 0.7, 0.7, 0.7)) > 0.99
    assert cosine(scene(), lit(scene(), 0.95, 0.8, 0.6)) > 0.99
    assert cosine(scene(), other) < 0.9


def test_turning_keeps_a_thing_nearer_than_another_thing() -> None:
    assert min(cosine(scene(), scene(angle)) for angle in (-25, -10, 10, 25)) > 0.96
    assert cosine(scene(), np.ascontiguousarray(scene()[..., ::-1])) < 0.95


def test_a_quarter_turn_changes_the_edges_only() -> None:
    features = ColourLayout().run(np.stack([scene(), np.rot90(scene()).copy()]))
    colours = features[:, : 5 * 3 * 25]
    assert colours[0] == pytest.approx(colours[1], abs=1e-5)
    assert not np.allclose(features[0, 375:], features[1, 375:], atol=0.01)


def test_colour_shares_of_a_plain_picture_are_worked_out_by_hand() -> None:
    grey = ColourLayout().run(np.full((1, 64, 64, 3), 128, np.uint8))[0]
    # Grey world makes every channel 0.4; the sum 1.2 + 0.15 + 0.1 has logarithm 0.372, which lies at (0.372 + 1.5) / 2.5
    # = 0.749 of the range, 1.497 on a scale of 0 … 2: bins 1 and 2 share it. No colour: the middle of five bins twice.
    place = (np.log(1.45) + 1.5) / 2.5 * 2
    shares = np.zeros((5, 3, 5, 5))
    shares[:, 1, 2, 2], shares[:, 2, 2, 2] = 2 - place, place - 1
    assert grey[:375] == pytest.approx(np.sqrt(shares.ravel() / 5), abs=1e-4)
    assert not grey[375:].any()  # no edges


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_picture_has_a_direction(value: int) -> None:
    features = ColourLayout().run(np.full((2, 64, 64, 3), value, np.uint8))
    assert np.isfinite(features).all()
    assert np.abs(np.linalg.norm(vectors.normalise(features), axis=1) - 1).max() < 1e-6


def test_a_picture_has_the_same_vector_in_every_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    together = ColourLayout().run(pixels)
    alone = np.concatenate([ColourLayout().run(one[np.newaxis]) for one in pixels])
    assert together == pytest.approx(alone, abs=1e-5)
    assert together.shape == (40, ColourLayout().dim)


def test_its_fingerprint_follows_its_parameters() -> None:
    assert descriptor.fingerprint() == descriptor.fingerprint(Parameters())
    assert descriptor.fingerprint() != descriptor.fingerprint(Parameters(edge_share=0.5))
    encoder = load_encoder("binsight:colour-layout")
    assert encoder.info.fingerprint == descriptor.fingerprint()
    assert (encoder.info.dim, encoder.info.model) == (503, "binsight:colour-layout")


def test_it_finds_unseen_views_of_parts_and_bins() -> None:
    parts, bins = catalogue(seed=20), fill_bins(catalogue(seed=20), 24, seed=20)  # a seed it was not chosen on
    encoder = load_encoder("binsight:colour-layout")

    def views(number: int) -> NDArray[np.float32]:
        def rng(kind: int, index: int) -> np.random.Generator:
            return np.random.default_rng([20, kind, index, number])

        photos = [catalogue_photo(part, rng(7, i), size_px=128) for i, part in enumerate(parts)]
        photos += [bin_photo(bin_, rng(8, i), size_px=128).image for i, bin_ in enumerate(bins)]
        return encoder.encode(photos).vectors

    shelf = np.concatenate([views(0), views(1)])
    things = len(parts) + len(bins)
    nearest = (views(2) @ shelf.T).argmax(axis=1) % things
    right = nearest == np.arange(things)
    assert right[: len(parts)].mean() >= 0.85
    assert right[len(parts) :].mean() >= 0.95
