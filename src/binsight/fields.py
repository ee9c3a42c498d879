"""Which fields a filter asks for that no item has: a slip of the pen finds nothing, and nothing else would say why."""

from __future__ import annotations

from itertools import islice

from binsight.filters import Filter, is_field_name
from binsight.store.base import SOURCE_KEY, VectorStore

MOST_ITEMS = 20_000  # looked at: a fraction of a second
_MOST_NAMES = 20  # told of those that there are


def absent_fields(store: VectorStore, where: Filter, *, most: int = MOST_ITEMS) -> str:
    """A sentence that names the fields of `where` that no item has, and those there are; empty where there are all.

    Such as "no item has a field 'lable'; there are label, path". most: items that are looked at, until all fields were met; of
    a larger store the sentence says that these were the first.
    """
    absent, there = set(where.fields), set[str]()
    looked_at = 0
    for item in islice(store.scan(), most):
        looked_at += 1
        there |= item.metadata.keys()
        absent -= item.metadata.keys()
        if not absent:
            return ""
    if not looked_at:
        return ""
    who = "no item" if looked_at < most else f"none of the first {looked_at:,} items"
    wanted = " or ".join(repr(name) for name in where.fields if name in absent)
    names = sorted(name for name in there if name != SOURCE_KEY and is_field_name(name))
    told = ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES} others" if len(names) > _MOST_NAMES else "")
    return f"{who} has a field {wanted}; there {'are' if len(names) > 1 else 'is'} {told or 'none'}"
