"""Requests that are made again: how often, and when no more."""

from __future__ import annotations

import time

import pytest

from binsight.data.retries import Retries


class Server:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.asked, self.failures, self.error = 0, failures, error

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error(f"failure {self.asked}")
        return "answer"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binsight.data.retries.FIRST_PAUSE_S", 0.02)


def test_a_request_is_made_five_times_at_most_with_doubled_pauses() -> None:
    """By hand: 0.02 + 0.04 + 0.08 + 0.16 seconds."""
    retries, server = Retries(lambda error: False), Server(9)
    began = time.perf_counter()
    with pytest.raises(ConnectionError, match="failure 5"):
        retries.call(server.ask)
    assert (server.asked, retries.made) == (5, 4)
    assert time.perf_counter() - began >= 0.3


def test_an_answer_ends_it() -> None:
    retries, server = Retries(lambda error: False), Server(2)
    assert retries.call(server.ask) == "answer"
    assert (server.asked, retries.made) == (3, 2)


def test_an_error_that_no_attempt_mends_is_raised_at_once() -> None:
    retries, server = Retries(lambda error: isinstance(error, FileNotFoundError)), Server(9, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        retries.call(server.ask)
    assert (server.asked, retries.made) == (1, 0)


def test_who_gives_up_waits_for_one_attempt_more_at_most() -> None:
    retries, server = Retries(lambda error: False), Server(9)
    retries.give_up()
    with pytest.raises(ConnectionError):
        retries.call(server.ask)
    assert server.asked == 2
