"""Whether a shared store agrees with itself."""

from __future__ import annotations

import numpy as np

from binsight.errors import StoreDamaged
from binsight.store.base import VerifyReport, metadata_object
from binsight.store.redis_filter import attributes
from binsight.store.redis_items import Partition, Record, RedisItems, read_record

_COUNT = "return {redis.call('VCARD', KEYS[1]), redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[3])}"


def verify(items: RedisItems, dim: int) -> VerifyReport:
    """Compare ids, records, vectors and attributes of every item. What differs is told if its version stayed the same."""
    problems: list[str] = []
    read = 0
    for part in items.partitions:
        for ids in items.pages(part):
            read += len(ids)
            suspects = [one for one, why in _differences(items, dim, items.raw_records(ids)).items() if why]
            problems += _confirmed(items, dim, part, suspects)
        problems += _miscounted(items, part)
    return VerifyReport(items=read, checked={"records": read, "vectors": read}, problems=problems)


def _confirmed(items: RedisItems, dim: int, part: Partition, suspects: list[str]) -> list[str]:
    """What still differs of items whose version is the same before and after it was looked at; others may be writing."""
    before = items.raw_records(suspects)
    found = _differences(items, dim, before)
    after = items.raw_records(suspects)
    return [f"partition {part.number}: id {one!r} {found[one]}" for one in suspects if found[one] and before[one] == after[one]]


def _differences(items: RedisItems, dim: int, raw: dict[str, bytes | None]) -> dict[str, str]:
    """What is wrong with each item of such a record, empty where nothing is."""
    found: dict[str, str] = {}
    records: dict[str, Record] = {}
    for one, text in raw.items():
        found[one] = ""  # also of one that was deleted since; ids without a record are counted
        try:
            record = read_record(text)
            if record is not None:
                metadata_object(record.text)
                records[one] = record
        except StoreDamaged as error:
            found[one] = f"has a record that cannot be read: {error}"
    rows = items.rows({one: record.seq for one, record in records.items()})
    told = items.each(list(records), lambda part, one: ("VGETATTR", part.vectors, f"{records[one].seq}:{one}"))
    for one, record in records.items():
        row = rows[one]
        if row is None:
            found[one] = "has no vector"
        elif row.shape != (dim,) or not np.isfinite(row).all() or abs(float(np.linalg.norm(row)) - 1) > 0.05:
            found[one] = f"has a vector that is no unit row of {dim}"
        elif told[one] != attributes(metadata_object(record.text)).encode():
            found[one] = "has attributes that are not its record's"
    return found


def _miscounted(items: RedisItems, part: Partition) -> list[str]:
    for _ in range(3):
        replies = items.asked({part.about: [("EVAL", _COUNT, 3, part.vectors, part.records, part.ids)]})[0][0]
        vectors, records, ids = (int(one) for one in replies)
        if vectors == records == ids:
            return []
    return [f"partition {part.number}: {ids} ids, {records} records and {vectors} vectors"]
