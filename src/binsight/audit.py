"""Recorded against seen: how far a count contradicts the books. Pure functions."""

from __future__ import annotations

from binsight.errors import BadSettings
from binsight.records import Count


def disagreement(count: Count, recorded: int) -> float:
    """1 − P(recorded), from 0 (the picture shows what is recorded, for certain) to 1 (it cannot).

    recorded: the quantity in the books, at least 0. The model does not tell counts above its max_count apart, so for these it
    is 1 − P(more than max_count): the least disagreement that may be. Raises BadSettings for what is no quantity.

    >>> round(disagreement(Count(2, 1.7, (0.1, 0.2, 0.6), 0.1, 1, 2), 2), 3)
    0.4
    """
    checked_quantity(recorded)
    chance = count.probabilities[recorded] if recorded < len(count.probabilities) else count.more
    return min(1.0, max(0.0, 1.0 - chance))  # probabilities are rounded where they come over HTTP


def is_likeliest(count: Count, recorded: int) -> bool:
    """Whether nothing is likelier than the recorded quantity; what lies above the model's max_count is one outcome.

    >>> is_likeliest(Count(2, 1.7, (0.1, 0.2, 0.3), 0.4, 1, 3), 2), is_likeliest(Count(2, 1.7, (0.1, 0.2, 0.3), 0.4, 1, 3), 40)
    (False, True)
    """
    outcomes = (*count.probabilities, count.more)
    return outcomes[min(checked_quantity(recorded), len(outcomes) - 1)] == max(outcomes)


def is_in_interval(count: Count, recorded: int) -> bool:
    """Whether the recorded quantity lies in the count's calibrated interval, whose top outcome stands for "more".

    >>> is_in_interval(Count(2, 1.7, (0.1, 0.2, 0.6), 0.1, 2, 3), 40)
    True
    """
    return count.low <= min(checked_quantity(recorded), len(count.probabilities)) <= count.high


def checked_quantity(value: object) -> int:
    """The same whole number of at least 0; one that is written as 3.0 is 3. Raises BadSettings for anything else."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(whole, bool) or not isinstance(whole, int) or whole < 0:
        raise BadSettings(f"want a quantity that is a whole number of at least 0, got {repr(value)[:40]}")
    return whole
