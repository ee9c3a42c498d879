"""Recorded against seen, with values worked out by hand."""

from __future__ import annotations

import pytest

from binsight.audit import checked_quantity, disagreement, is_in_interval
from binsight.errors import BadSettings
from binsight.records import Count

COUNT = Count(value=2, expected=1.75, probabilities=(0.05, 0.1, 0.6, 0.05), more=0.2, low=1, high=2)


@pytest.mark.parametrize(("recorded", "wanted"), [(0, 0.95), (1, 0.9), (2, 0.4), (3, 0.95), (4, 0.8), (400, 0.8)])
def test_disagreement_is_one_minus_the_probability_of_the_recorded_quantity(recorded: int, wanted: float) -> None:
    assert disagreement(COUNT, recorded) == pytest.approx(wanted)


@pytest.mark.parametrize(("recorded", "wanted"), [(0, False), (1, True), (2, True), (3, False), (4, False)])
def test_a_quantity_is_in_the_interval_or_not(recorded: int, wanted: bool) -> None:
    assert is_in_interval(COUNT, recorded) is wanted


def test_an_interval_that_ends_in_more_holds_every_larger_quantity() -> None:
    open_ended = Count(3, 2.5, (0.1, 0.1, 0.1, 0.4), 0.3, 3, 4)
    assert is_in_interval(open_ended, 4)
    assert is_in_interval(open_ended, 999)
    assert not is_in_interval(open_ended, 2)


def test_rounding_never_leads_out_of_zero_to_one() -> None:
    assert disagreement(Count(0, 0.0, (1.0000001,), 0.0, 0, 0), 0) == 0.0


def test_a_whole_number_written_as_a_fraction_is_one() -> None:
    assert checked_quantity(3.0) == 3


@pytest.mark.parametrize("bad", [-1, 2.5, True, "3", None, float("nan")])
def test_what_is_no_quantity_is_refused(bad: object) -> None:
    with pytest.raises(BadSettings, match="want a quantity that is a whole number of at least 0"):
        checked_quantity(bad)
