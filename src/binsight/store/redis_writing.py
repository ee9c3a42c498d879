"""Writes of a shared store: one script for each, which counts once however often it is sent, and can be held for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final
from uuid import uuid4

from binsight.errors import CannotBeDone, StoreHeld, StoreWriteFailed
from binsight.store.base import Batch, metadata_object
from binsight.store.redis_filter import attributes
from binsight.store.redis_items import ATTEMPTS, RedisItems
from binsight.store.redis_link import AskAliases, Command, Reply

_TOGETHER = 16  # items a script writes, while which the server does nothing else
_DURABLE_SHARE = 0.8  # of the time for an answer: how long a write may take to the disk

_THIS = """
local about = redis.call('GET', KEYS[1])
if not about or not string.find(about, ARGV[1], 1, true) then return redis.error_reply('NOSTORE') end
"""
_OURS = (
    _THIS
    + """
local who, may, why = string.match(redis.call('GET', KEYS[6]) or '', '^(%w*)([+-]) (.*)$')
if not (who == ARGV[2] and may == '+') then
  if who then return redis.error_reply('HELD ' .. why) end
  local left = redis.call('GET', KEYS[7])
  if left then return redis.error_reply('LEFT ' .. left) end
end
"""
)
_WRITE = (
    _OURS
    + """
local newest = 0
for at = 4, #ARGV, 5 do
  local seq, id, vector, attributes, record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local old = redis.call('HGET', KEYS[3], id)
  local old_seq = old and string.match(old, '^%d+')
  local number = old_seq and tonumber(old_seq) or 0
  if number > tonumber(seq) then newest = math.max(newest, number) end
  if number < tonumber(seq) or (number == tonumber(seq) and old ~= record) then
    if old_seq then redis.call('VREM', KEYS[2], old_seq .. ':' .. id) end
    redis.call('VADD', KEYS[2], 'FP32', vector, seq .. ':' .. id, ARGV[3], 'SETATTR', attributes)
    redis.call('HSET', KEYS[3], id, record)
    redis.call('ZADD', KEYS[4], 0, id)
  end
end
redis.call('INCR', KEYS[5])
return newest
"""
)
_DELETE = (
    _OURS
    + """
local count = 0
for at = 3, #ARGV do
  local id = ARGV[at]
  local old = redis.call('HGET', KEYS[3], id)
  if old then
    redis.call('VREM', KEYS[2], string.match(old, '^%d+') .. ':' .. id)
    redis.call('HDEL', KEYS[3], id)
    redis.call('ZREM', KEYS[4], id)
    count = count + 1
  end
end
redis.call('INCR', KEYS[5])
return count
"""
)
# A hold says who holds, whether its owner may write (+ or -), and why. While it is there it is its owner's alone. Beside it
# stand the aliases that may have left the store: what is true of them is asked of themselves, when nobody holds the store.
# That mark is another one each time, since what an alias said of the former one is no longer true.
_MINE = (
    _THIS
    + """
local who, may, why = string.match(redis.call('GET', KEYS[6]) or '', '^(%w*)([+-]) (.*)$')
if who and who ~= ARGV[2] then return redis.error_reply('HELD ' .. why) end
"""
)
_HOLD = (
    _MINE
    + """
redis.call('SET', KEYS[6], ARGV[2] .. ARGV[3] .. ' ' .. ARGV[4], 'PX', ARGV[5])
local leaving, joining, mark = ARGV[6], ARGV[7], ARGV[8]
local left = string.match(redis.call('GET', KEYS[7]) or '', '^%S*')
if leaving ~= '' then
  if not string.find(',' .. left .. ',', ',' .. leaving .. ',', 1, true) then
    left = left == '' and leaving or leaving .. ',' .. left
  end
  redis.call('SET', KEYS[7], left .. ' ' .. mark)
end
if joining ~= '' and left ~= '' then redis.call('SET', KEYS[7], joining .. ' ' .. mark) end
return 1
"""
)
_RELEASE = _MINE + "return redis.call('DEL', KEYS[6])"
_NOT_LEFT = (
    _THIS
    + """
if redis.call('EXISTS', KEYS[6]) == 0 and redis.call('GET', KEYS[7]) == ARGV[2] then redis.call('DEL', KEYS[7]) end
return 1
"""
)
_FOLLOW = _THIS + "return redis.call('SET', KEYS[2], ARGV[2])"
_RAISE = (
    "if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end return 1"
)


@final
class RedisWriter:
    """Writes to the items of one store.

    store: its id. named: which store an alias names, None where there is no such alias. is_durable: whether a write is waited
    for until it is on the disk.
    """

    def __init__(
        self, items: RedisItems, store: str, named: Callable[[str], str | None], *, is_quantized: bool, is_durable: bool
    ) -> None:
        self._items, self._store, self._named = items, store, named
        self._mode = "Q8" if is_quantized else "NOQUANT"
        self._is_durable = is_durable
        self._owner = uuid4().hex

    def upsert(self, batch: Batch) -> None:
        """A batch of which a part was refused is there in part; sent again, it ends as if it had been sent once."""
        for _ in range(ATTEMPTS):
            newest = self._unless_left(partial(self._written, batch))
            if not newest or newest <= self._last_number():
                return  # nothing newer was there, or another writer's, whose number came later
            counter = self._items.partitions[0]
            # The node of the counter was restored from an older state than the others.
            self._items.asked({counter.about: [("EVAL", _RAISE, 1, counter.seq, newest)]})
        raise CannotBeDone(f"{self._items.url.shown} gives numbers that are older than its records; restore it from one backup")

    def _last_number(self) -> int:
        counter = self._items.partitions[0]
        return int(self._items.asked({counter.about: [("GET", counter.seq)]})[0][0] or 0)

    def _written(self, batch: Batch) -> int:
        """The highest number of a record that was passed over because it is newer; 0 where none was."""
        counter = self._items.partitions[0]
        last = int(self._items.asked({counter.about: [("INCRBY", counter.seq, len(batch.ids))]})[0][0])
        arguments: dict[int, list[Any]] = {}
        for place, (one, text) in enumerate(zip(batch.ids, batch.metadata, strict=True)):
            seq = last - len(batch.ids) + 1 + place
            row = batch.vectors[place].astype("<f4", copy=False).tobytes()
            record = f"{seq}\n{text}"
            arguments.setdefault(self._items.number_of(one), []).extend(
                [seq, one, row, attributes(metadata_object(text)), record]
            )
        step = 5 * _TOGETHER
        calls = {
            number: [
                self._items.partitions[number].script(_WRITE, self._store, self._owner, self._mode, *of[start : start + step])
                for start in range(0, len(of), step)
            ]
            for number, of in arguments.items()
        }
        scripts = 0 if not self._is_durable else 1  # its last reply is that of the wait
        return max(int(one) for of in self._durably(calls) for one in of[: len(of) - scripts])

    def delete(self, ids: list[str]) -> int:
        """How many were there, as the server says; of a call whose first answer was lost, as it says to the second."""
        by_partition: dict[int, list[str]] = {}
        for one in ids:
            by_partition.setdefault(self._items.number_of(one), []).append(one)
        calls = {
            number: [self._items.partitions[number].script(_DELETE, self._store, self._owner, *some)]
            for number, some in by_partition.items()
        }
        return self._unless_left(lambda: sum(int(replies[0]) for replies in self._durably(calls)))

    def _unless_left(self, write: Callable[[], int]) -> int:
        """The write's answer. Raises StoreHeld where an alias that was about to leave the store did so."""
        while True:
            try:
                return write()
            except AskAliases as error:
                left = error.left
            for now in map(self._named, left.split()[0].split(",")):
                if now not in (None, self._items.url.index):
                    why = f"it was replaced by {now}; write to that, or to its alias"
                    raise StoreHeld(f"{self._items.url.shown} takes no writes now: {why}")
            for part in self._items.partitions:
                self._durably({part.number: [part.script(_NOT_LEFT, self._store, left)]})

    def _durably(self, calls: dict[int, list[Command]]) -> list[list[Reply]]:
        """Done, and on the disk of each node if the store's writes are to be."""
        limit_ms = int(1000 * _DURABLE_SHARE * self._items.url.timeout_s)
        waits: Command | None = ("WAITAOF", 1, 0, limit_ms) if self._is_durable else None
        replies = self._items.asked(
            {self._items.partitions[number].about: commands for number, commands in calls.items()}, last=waits
        )
        if waits is not None and any(int(one[-1][0]) < 1 for one in replies):
            raise StoreWriteFailed(f"{self._items.url.shown} did not bring the write to its disk within {limit_ms / 1000:g} s")
        return replies

    def hold(self, why: str, for_s: float, *, but_mine: bool, leaving: str, joining: str) -> None:
        """Refuse the writes of all, also of those whose handle is open, from when this returns.

        Partition by partition, the first decides between two who try at once. Raises StoreHeld where another's lasts.
        """
        said = ("+" if but_mine else "-", why, max(1, round(1000 * for_s)), leaving, joining, uuid4().hex)
        for part in self._items.partitions:
            self._durably({part.number: [part.script(_HOLD, self._store, self._owner, *said)]})

    def release(self) -> None:
        """End this handle's hold. Raises StoreHeld where another holds."""
        for part in self._items.partitions:
            self._durably({part.number: [part.script(_RELEASE, self._store, self._owner)]})

    def follow(self, store: str) -> None:
        """Remember which store this one is filled from."""
        first = self._items.partitions[0]
        self._items.asked({first.about: [("EVAL", _FOLLOW, 2, first.about, first.follows, self._store, store)]})
