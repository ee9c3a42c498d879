"""What a shared store says of itself, and how one is made."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

from binsight.errors import StoreDamaged
from binsight.records import Metadata, StoreInfo
from binsight.store.base import checked_info
from binsight.store.redis_items import Partition, decoded
from binsight.store.redis_link import Command, RedisLink
from binsight.store.redis_url import RedisUrl

FORMAT, VERSION = "binsight-redis", 1
CLUSTER_PARTITIONS = 6


def read(url: RedisUrl, link: RedisLink) -> Metadata | None:
    """What the store says of itself; None where there is none, or one that is still being made."""
    first = Partition(url.index, 0)
    text = link.ask({first.about: [("GET", first.about)]})[first.about][0]
    if text is None:
        return None
    about = _parsed(url, text)
    if about.get("making"):
        return None
    others = [Partition(url.index, number).about for number in range(1, about["partitions"])]
    found = link.ask({name: [("GET", name)] for name in others})
    if lost := [name for name in others if about["store"] not in decoded(found[name][0] or b"")]:
        raise StoreDamaged(
            f"{url.shown} has lost {lost[0]} ({len(lost)} of {about['partitions']} partitions); restore it from a backup"
        )
    return about


def _parsed(url: RedisUrl, text: bytes) -> Metadata:
    try:
        about: Metadata = json.loads(text)
        kinds = {"store": str, "partitions": int, "version": int, "dim": int, "quantization": str, "created": str}
        wrong = [name for name, kind in kinds.items() if not isinstance(about[name], kind)]
        is_ours = about["format"] == FORMAT and not wrong
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{url.shown} does not describe a store: {error}") from error
    if not is_ours or about["version"] != VERSION:
        raise StoreDamaged(f"{url.shown} is not of format {FORMAT} {VERSION}, which this version reads")
    return about


def make(url: RedisUrl, link: RedisLink, create: StoreInfo) -> Metadata:
    """Partition 0 is written first, as being made, and again when all others are there. Of several makers, and after one that
    was killed, each brings to its end what is written in partition 0. Raises StoreDamaged over what is left of another store.
    """
    info = checked_info(create)
    first = Partition(url.index, 0)
    about: Metadata = {
        "format": FORMAT,
        "version": VERSION,
        "store": uuid4().hex,
        "dim": info.dim,
        "fingerprint": info.fingerprint,
        "model": info.model,
        "metric": info.metric,
        "created": info.created or datetime.now(UTC).isoformat(timespec="seconds"),
        "quantization": url.quantization or "none",
        "partitions": url.partitions or (CLUSTER_PARTITIONS if url.is_cluster else 1),
    }
    is_new, text = _claimed(link, url, first, json.dumps(about | {"making": True}))
    made = about if is_new else _parsed(url, text)
    for number in range(1, made["partitions"]):
        mine = json.dumps({"store": made["store"], "partition": number, "of": made["partitions"]})
        part = Partition(url.index, number)
        is_new, text = _claimed(link, url, part, mine)
        if not is_new and made["store"] not in decoded(text):
            raise _remains(url, part)
    final = {name: value for name, value in made.items() if name != "making"}
    link.ask({first.about: [("SET", first.about, json.dumps(final), "XX")]})
    return final


def _claimed(link: RedisLink, url: RedisUrl, part: Partition, about: str) -> tuple[bool, bytes]:
    """Whether a partition was free and is ours now, and what it says of itself. Raises StoreDamaged over another's data."""
    remains: Command = ("EXISTS", part.records, part.vectors, part.left, part.follows)
    calls: list[Command] = [remains, ("SET", part.about, about, "NX"), ("GET", part.about)]
    found, was_set, text = link.ask({part.about: calls})[part.about]
    if was_set and int(found):
        link.ask({part.about: [("DEL", part.about)]})
        raise _remains(url, part)
    return bool(was_set), text or b""


def _remains(url: RedisUrl, part: Partition) -> StoreDamaged:
    keys = part.about.removesuffix("about")
    return StoreDamaged(
        f"{url.shown} cannot be made over the remains of another store: restore that, or delete the keys {keys}*"
    )
