"""Long work goes on while somebody waits for it."""

from __future__ import annotations

import pytest

from binsight.app.visitors import GRACE_S, Visitors
from binsight.errors import CannotBeDone


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def visitors(now: list[float]) -> Visitors:
    return Visitors(clock=lambda: now[0])


def test_work_goes_on_while_its_page_is_open_and_for_a_moment_after(visitors: Visitors, now: list[float]) -> None:
    go_on = visitors.work_for("me")
    now[0] += GRACE_S
    go_on()  # the page may not listen yet
    with visitors.waiting("me"), visitors.waiting("me"):
        now[0] += 1000
        go_on()
    now[0] += GRACE_S
    go_on()
    now[0] += 1
    with pytest.raises(CannotBeDone, match="the work was stopped, since nobody waited for it"):
        go_on()
    with visitors.waiting("me"):
        go_on()


def test_work_that_is_stopped_ends_and_what_begins_later_goes_on(visitors: Visitors, now: list[float]) -> None:
    with visitors.waiting("me"), visitors.waiting("you"):
        mine, yours = visitors.work_for("me"), visitors.work_for("you")
        visitors.stop("me")
        with pytest.raises(CannotBeDone, match="the work was stopped, as asked"):
            mine()
        yours()
        now[0] += 0.001
        visitors.work_for("me")()


def test_others_who_wait_keep_no_work_going(visitors: Visitors, now: list[float]) -> None:
    go_on = visitors.work_for("me")
    with visitors.waiting("you"):
        now[0] += GRACE_S + 1
        with pytest.raises(CannotBeDone):
            go_on()


def test_no_work_goes_on_when_the_app_ends(visitors: Visitors) -> None:
    go_on = visitors.work_for("me")
    visitors.end()
    with visitors.waiting("me"), pytest.raises(CannotBeDone):
        go_on()


def test_of_visitors_without_end_only_the_last_are_remembered(visitors: Visitors) -> None:
    for number in range(1100):
        with visitors.waiting(str(number)):
            pass
    assert (len(visitors._seen), visitors._waiting) == (1000, {})
