"""What a stage's stopwatch says, worked out by hand; and that no stage runs far ahead of the next."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from binsight.errors import StoreUnavailable
from binsight.ingest import ingest, list_sources
from binsight.patience import Patience
from binsight.rates import Rates, StageRate, bottleneck, rates_json
from binsight.store.base import Batch
from binsight.store.exact import ExactStore
from tests.fakes import mean_colour_encoder, paint


def test_rates_are_those_of_busy_threads() -> None:
    """Four threads that worked eight seconds together over 100 items could do 50 a second; in 4 s they were half busy."""
    rates = Rates({"read": 4})
    rates.add("read", 60, 5.0)
    rates.add("read", 40, 3.0)
    rates.add("write", 100, 3.0)
    assert rates.stages() == [StageRate("read", 4, 100, 8.0), StageRate("write", 1, 100, 3.0)]
    assert rates_json(rates.stages(), 4.0) == [
        {"stage": "read", "threads": 4, "items": 100, "busy_s": 8.0, "per_s": 50.0, "busy": 0.5},
        {"stage": "write", "threads": 1, "items": 100, "busy_s": 3.0, "per_s": 33.3, "busy": 0.75},
    ]
    assert bottleneck(rates.stages()) == "write"
    assert bottleneck([]) is None


def test_a_block_that_fails_is_not_counted() -> None:
    rates = Rates()
    with pytest.raises(ValueError, match="no"), rates.timing("encode", 5):
        raise ValueError("no")
    assert rates.stages() == []


def test_a_block_that_lasts_counts_as_busy_and_its_items_when_it_is_done() -> None:
    rates = Rates()
    rates.add("decode", 100, 0.01)
    with rates.timing("encode", 100):
        time.sleep(0.05)
        _, encode = rates.stages()
        assert (encode.stage, encode.items, encode.per_s) == ("encode", 0, 0.0)
        assert encode.busy_s >= 0.05
        assert bottleneck(rates.stages()) == "encode"
    _, encode = rates.stages()
    assert (encode.stage, encode.items) == ("encode", 100)


def test_how_many_inputs_there_are_is_told_before_the_first_is_done(tmp_path: Path) -> None:
    for n in range(3):
        paint(tmp_path / f"{n}.png", (n, 7, 7), size=(8, 8))
    encoder, told = mean_colour_encoder(), list[tuple[int, int]]()
    with ExactStore(encoder.info) as store:
        ingest(list_sources([str(tmp_path)]), encoder, store, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (3, 3)]


class SlowStore(ExactStore):  # type: ignore[misc]  # final: only here, to be slow
    """A store that takes its time, and says how far the job had come each time that it was written to."""

    rates: Rates
    ahead: list[int]

    def _upsert(self, batch: Batch) -> None:
        time.sleep(0.02)
        super()._upsert(batch)
        done = {one.stage: one.items for one in self.rates.stages()}
        self.ahead.append(done["decode"] - len(self))


def test_a_slow_store_holds_up_the_decoders(tmp_path: Path) -> None:
    """With batches of 4: three are decoded, one is encoded, two wait for the store and one is written; and some of 8 beside."""
    for n in range(400):
        paint(tmp_path / f"{n}.png", (n % 256, 7, 7), size=(8, 8))
    encoder = mean_colour_encoder()
    store = SlowStore(encoder.info)
    store.rates, store.ahead = Rates(), []
    report = ingest(list_sources([str(tmp_path)]), encoder, store, batch_size=4, rates=store.rates)
    assert report.indexed == 400
    assert bottleneck(report.stages) == "write"
    assert max(store.ahead) <= (3 + 1 + 2 + 1) * 4 + 2 * 8


def test_patience_ends_with_its_limit_and_counts_what_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, pauses = list[float](), list[float | None]()

    class Told(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr("binsight.patience.Event", Told)
    limit_s, planned = 0.75, [0.1, 0.2, 0.4, 0.8]
    patience = Patience(limit_s)

    def away() -> None:
        tries.append(time.perf_counter())
        raise StoreUnavailable("away")

    began = time.perf_counter()
    with pytest.raises(StoreUnavailable):
        patience.call(away)
    ended = time.perf_counter()
    assert len(tries) >= 2  # four: at 0, 0.1, 0.3 and 0.7 s; on a busy machine later, and fewer
    assert pauses == pytest.approx(planned[: len(tries) - 1])
    for before, after, pause in zip(tries, tries[1:], planned, strict=False):
        assert after - before >= 0.99 * pause
        assert before - tries[0] + pause <= limit_s
    assert ended - began + planned[len(tries) - 1] > limit_s
    assert tries[-1] - tries[0] <= patience.waited_s <= ended - began


def test_patience_that_is_not_needed_costs_nothing() -> None:
    patience = Patience(0.0)
    assert patience.call(lambda: 7) == 7
    assert patience.waited_s == 0


def test_who_gives_up_waits_no_longer() -> None:
    patience = Patience(60)
    timer = threading.Timer(0.2, patience.give_up)
    timer.start()

    def away() -> None:
        raise StoreUnavailable("away")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        patience.call(away)
    assert time.monotonic() - began < 5
    timer.join()
