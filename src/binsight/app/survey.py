"""What is in a store, from some of its items: fields to filter by, a random sample, the newest pictures."""

from __future__ import annotations

import heapq
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeAlias

from binsight.origin import source_of
from binsight.records import Item
from binsight.store.base import SOURCE_KEY

Kind: TypeAlias = Literal["text", "number", "yes or no", "list"]

MOST_ITEMS = 20_000  # read for a survey: a fraction of a second
MOST_VALUES = 100  # of a field, offered to choose from
_LONGEST_VALUE = 80
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")  # what a filter can name

QUANTITY_NAMES = ("quantity", "count", "stock", "recorded", "expected_quantity", "on_hand")
PLACE_NAMES = ("shelf", "location", "place", "bin", "aisle", "rack", "pod")


@dataclass(frozen=True, slots=True)
class Field:
    """A top-level field of the items' metadata. values: the most frequent ones as text, sorted; items: how many have it."""

    name: str
    kind: Kind
    values: tuple[str, ...]
    items: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What was learnt of a store. looked_at: how many items were read; total: how many there are.

    is_listed: whether they are the first ones of a list, in place of what lies near some random vectors.
    """

    total: int
    looked_at: int
    fields: tuple[Field, ...] = ()
    sample: tuple[Item, ...] = ()
    newest: tuple[Item, ...] = ()
    is_listed: bool = True

    def field_named(self, name: str) -> Field | None:
        return next((one for one in self.fields if one.name == name), None)

    @property
    def quantity_name(self) -> str | None:
        """The field that holds the recorded quantity, by its name."""
        return self._first(QUANTITY_NAMES, "number")

    @property
    def place_name(self) -> str | None:
        """The field that says where an item lies, by its name."""
        return self._first(PLACE_NAMES, None)

    def _first(self, names: Iterable[str], kind: Kind | None) -> str | None:
        known = {one.name.lower(): one for one in self.fields if kind in (None, one.kind)}
        return next((known[name].name for name in names if name in known), None)


@dataclass(slots=True)
class _Seen:
    """What was seen of one field."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)


def survey_of(items: Iterable[Item], total: int, chance: random.Random, *, shown: int = 12, most: int = MOST_ITEMS) -> Survey:
    """Read at most so many items. shown: how many are sampled, and how many are the newest (by their files' times)."""
    seen: dict[str, _Seen] = {}
    sample: list[Item] = []
    newest: list[tuple[int, int, Item]] = []
    looked_at = 0
    for number, item in enumerate(islice(items, most)):
        looked_at = number + 1
        _note(seen, item)
        _draw(sample, item, looked_at, shown, chance)
        written = source_of(item).get("mtime_ns")
        if isinstance(written, int):
            heapq.heappush(newest, (written, -number, item))
            if len(newest) > shown:
                heapq.heappop(newest)
    ordered = sorted(newest, key=lambda one: one[:2], reverse=True)
    fields = sorted((_field(name, one) for name, one in seen.items()), key=lambda one: (-one.items, one.name))
    return Survey(total, looked_at, tuple(fields), tuple(sample), tuple(item for _, _, item in ordered))


def _note(seen: dict[str, _Seen], item: Item) -> None:
    for name, value in item.metadata.items():
        kind = kind_of(value)
        if kind is None or name == SOURCE_KEY or not is_field_name(name):
            continue
        one = seen.setdefault(name, _Seen())
        one.kinds[kind] += 1
        for part in value if kind == "list" else [value]:
            text = value_text(part)
            if text is not None and len(text) <= _LONGEST_VALUE:
                one.values[text] += 1


def _draw(sample: list[Item], item: Item, place: int, size: int, chance: random.Random) -> None:
    """Reservoir sampling: after n items each is in the sample with probability size / n."""
    if len(sample) < size:
        sample.append(item)
    elif (at := chance.randrange(place)) < size:
        sample[at] = item


def _field(name: str, seen: _Seen) -> Field:
    ((kind, _),) = seen.kinds.most_common(1)
    values = [text for text, _ in seen.values.most_common(MOST_VALUES)]
    order = sorted(values, key=_as_number) if kind == "number" else sorted(values)
    return Field(name, kind, tuple(order), seen.kinds.total())


def is_field_name(name: str) -> bool:
    """Whether a filter can name it."""
    return _NAME.fullmatch(name) is not None


def kind_of(value: object) -> Kind | None:
    """What a filter may ask of a value; None where there is nothing to ask.

    >>> [kind_of(one) for one in ("ram", 2.5, True, ["a"], None, {})]
    ['text', 'number', 'yes or no', 'list', None, None]
    """
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else None


def value_text(value: Any) -> str | None:  # any JSON
    """A scalar as people read it; None for null, lists and objects."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) else None


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # the field holds texts, too
        return float("inf")
