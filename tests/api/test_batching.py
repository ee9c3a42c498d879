"""Pictures that wait pass the model together, and each gets its own answer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from numpy.typing import NDArray

from binsight.api.batching import Batcher, Told
from binsight.encoder import Encoder
from binsight.errors import BadVectors
from tests.fakes import SIZE, MeanColour, by_hand, mean_colour_encoder


class Gated(MeanColour):
    """Waits to be let go; black pictures have no direction."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.gate.wait(10)
        self.sizes.append(len(pixels))
        return super().run(pixels) - np.float32(1)


def encoder_of(runtime: MeanColour) -> Encoder:
    preprocess = mean_colour_encoder().preprocess
    return Encoder(model="gated", fingerprint="e" * 64, preprocess=preprocess, runtime=runtime)


def plain(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def test_what_waits_is_the_next_batch_and_each_gets_its_own_answer() -> None:
    runtime = Gated()
    passes: list[int] = []
    batcher = Batcher(encoder_of(runtime), most=4, observe=lambda pictures, seconds: passes.append(pictures))
    colours = [(10 * n + 1, 5, 200 - 10 * n) for n in range(8)]
    futures = [batcher.submit(plain(colours[0]))]
    while batcher.waiting:  # the first one is with the model
        time.sleep(0.001)
    futures += [batcher.submit(plain(colour)) for colour in colours[1:]]
    runtime.gate.set()
    for colour, future in zip(colours, futures, strict=True):
        wanted = np.array(colour) / np.linalg.norm(colour)
        assert future.result(10).vector[0] == pytest.approx(wanted, abs=1e-6)
    batcher.close()
    assert runtime.sizes == passes == [1, 4, 3]


def test_a_picture_without_direction_is_its_own_error_only() -> None:
    runtime = Gated()
    batcher = Batcher(encoder_of(runtime), most=8, observe=lambda pictures, seconds: None)
    first = batcher.submit(plain((9, 9, 9)))
    while batcher.waiting:
        time.sleep(0.001)
    futures = [batcher.submit(plain(colour)) for colour in ((1, 0, 0), (0, 0, 0), (0, 1, 0))]
    runtime.gate.set()
    assert first.result(10).vector.shape == (1, 3)
    assert futures[0].result(10).vector[0] == pytest.approx([1, 0, 0])
    with pytest.raises(BadVectors, match="no direction"):
        futures[1].result(10)
    assert futures[2].result(10).vector[0] == pytest.approx([0, 1, 0])
    batcher.close()


def test_who_no_longer_waits_is_passed_over_and_closing_answers_the_rest() -> None:
    runtime = Gated()
    batcher = Batcher(encoder_of(runtime), most=8, observe=lambda pictures, seconds: None)
    first = batcher.submit(plain((9, 9, 9)))
    while batcher.waiting:
        time.sleep(0.001)
    gone, stays = batcher.submit(plain((1, 0, 0))), batcher.submit(plain((0, 0, 1)))
    assert gone.cancel()
    runtime.gate.set()
    batcher.close()
    assert first.done()
    assert stays.result(0).vector[0] == pytest.approx([0, 0, 1])
    assert runtime.sizes == [1, 1]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(plain((1, 1, 1)))


def test_an_error_of_the_model_is_told_to_all_who_asked() -> None:
    class Failing(MeanColour):
        def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise MemoryError("no memory")

    batcher = Batcher(encoder_of(Failing()), most=8, observe=lambda pictures, seconds: None)
    future: Future[Told] = batcher.submit(plain((1, 1, 1)))
    with pytest.raises(MemoryError):
        future.result(10)
    batcher.close()


def test_the_colours_of_the_fake_are_as_by_hand() -> None:
    batcher = Batcher(mean_colour_encoder(), most=2, observe=lambda pictures, seconds: None)
    assert batcher.submit(plain((3, 4, 5))).result(10).vector[0] == pytest.approx(by_hand((3, 4, 5)), abs=1e-6)
    batcher.close()
