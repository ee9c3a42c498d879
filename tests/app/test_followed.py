"""A store that the app was given by its alias."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from binsight.app import followed
from binsight.app.backend import Local
from binsight.app.followed import FollowedStore
from binsight.app.surveys import Surveys
from binsight.encoder import Encoder
from binsight.records import Item
from binsight.search import Searcher
from binsight.store import open_alias, open_store
from tests.fakes import MeanColour, mean_colour_encoder, paint

HELD = {"one": ["a"], "two": ["b", "c"]}
LONG_S = 20


class Waiting(MeanColour):
    """Begins to encode, and goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.has_begun.set()
        assert self.may_go_on.wait(LONG_S)
        return super().run(pixels)


def point_at(live: Path, name: str) -> None:
    with open_alias(live) as alias:
        alias.point_at(name, former=alias.target())


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An alias of `one`, with `two` beside it."""
    monkeypatch.setattr(followed, "_LOOK_S", 0.01)
    monkeypatch.setattr(followed, "_LOOK_AGAIN_S", 0.01)
    for name, ids in HELD.items():
        encoder = mean_colour_encoder()
        with open_store(tmp_path / name, create=encoder.info) as store:
            photo = paint(tmp_path / "photo.png", (200, 30, 30))
            Searcher(encoder, store).add([Item(one, {name: 1}) for one in ids], [photo] * len(ids))
    point_at(tmp_path / "live", "one")
    return tmp_path / "live"


@pytest.fixture
def runtime() -> MeanColour:
    return MeanColour()


@pytest.fixture
def backend(live: Path, runtime: MeanColour) -> Iterator[FollowedStore]:
    made = mean_colour_encoder()
    encoder = Encoder(model="mean-colour", fingerprint="e" * 64, preprocess=made.preprocess, runtime=runtime)
    found = FollowedStore(str(live), lambda url: Local(Searcher(encoder, open_store(url, read_only=True)), url))
    yield found
    found.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ids(backend: FollowedStore, live: Path) -> list[str]:
    return [match.item.id for match in backend.find(str(live.parent / "photo.png"), k=5, where=None).matches]


def test_what_the_alias_names_answers_without_a_restart(backend: FollowedStore, live: Path) -> None:
    surveys = Surveys(backend)
    assert (ids(backend, live), [one.name for one in surveys.current().fields]) == (["a"], ["one"])
    assert backend.name == "the store one, which live names"
    point_at(live, "two")
    wait_until(lambda: backend.info().items == 2)
    assert ids(backend, live) == ["b", "c"]
    assert (surveys.current().total, [one.name for one in surveys.current().fields]) == (2, ["two"])
    assert backend.name == "the store two, which live names"


@pytest.mark.parametrize("runtime", [Waiting()])
def test_a_call_that_began_before_ends_with_the_former_store(backend: FollowedStore, live: Path, runtime: Waiting) -> None:
    found: list[list[str]] = []
    asking = threading.Thread(target=lambda: found.append(ids(backend, live)))
    asking.start()
    assert runtime.has_begun.wait(LONG_S)
    point_at(live, "two")
    wait_until(lambda: backend.info().items == 2)
    runtime.may_go_on.set()
    asking.join(LONG_S)
    assert found == [["a"]]
    assert ids(backend, live) == ["b", "c"]


def test_while_the_next_store_cannot_be_opened_the_former_one_answers_and_it_is_told(
    backend: FollowedStore, live: Path, caplog: pytest.LogCaptureFixture
) -> None:
    point_at(live, "gone")
    wait_until(lambda: not backend.check().is_sound)
    assert backend.check().told.startswith("The alias, or the store behind it, cannot be opened: ")
    assert "answers come from the former store" in backend.check().told
    assert ids(backend, live) == ["a"]
    assert len(caplog.records) == 1  # told once, however often it is tried
    point_at(live, "two")
    wait_until(lambda: backend.check().is_sound and backend.info().items == 2)
