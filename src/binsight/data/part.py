"""One part of a job that several machines share: which of all ids are its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

from binsight.errors import BadSettings

MOST_PARTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` (from 1) of `parts`: every id is in exactly one, on any machine and from any source.

    Raises BadSettings for a part that there is not.
    """

    number: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.parts <= MOST_PARTS or not 1 <= self.number <= self.parts:
            raise BadSettings(f"want part I/N with I from 1 to N and N up to {MOST_PARTS:,}, got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """A part as one types it.

        >>> Part.parse("2/8")
        Part(number=2, parts=8)
        """
        found = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text, re.ASCII)
        if found is None:
            raise BadSettings(f"want part I/N such as 2/8, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    @property
    def is_whole(self) -> bool:
        return self.parts == 1

    def holds(self, one: str) -> bool:
        """Whether an id belongs to this part."""
        if self.is_whole:
            return True
        digest = blake2b(one.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.parts == self.number - 1


WHOLE = Part()
