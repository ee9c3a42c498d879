"""Whether a store answers: asked beside the calls that wait for it, so that nobody waits long for one that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, final

from binsight.api.problems import busy
from binsight.errors import BinsightError, StoreUnavailable

T = TypeVar("T")
PATIENCE_S = 0.8  # of a call, before the store is asked whether it is there
_ANSWER_S = 0.8  # for that question


@final
class Reach:
    """A store that is slow and one that is gone look the same to a call; a small question tells them apart.

    ask: a call that any store answers at once; raises what keeps it from that. Used from the event loop; `ask` runs in a
    thread of its own. Once the store is known to be gone, calls are refused at once, and each such refusal asks anew.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reach")
        self._asking: asyncio.Future[str] | None = None
        self._why = ""  # it is away; empty while it is not

    def expect(self) -> None:
        """Raise HttpProblem 503 where the store is known to be away."""
        if self._why:
            self._question()
            raise self._away()

    async def answered(self, call: asyncio.Future[T]) -> T:
        """What a call brings. Raises HttpProblem 503 as soon as the store turns out to be away; the call itself goes on."""
        await asyncio.wait([call], timeout=PATIENCE_S)
        while not call.done():
            if await self.why_away():
                call.add_done_callback(_let_go)
                raise self._away()
            await asyncio.wait([call], timeout=PATIENCE_S)
        try:
            return call.result()
        except StoreUnavailable as error:
            self._why = str(error)
            raise

    async def why_away(self) -> str:
        """Why the store does not answer; empty when it does."""
        question = self._question()
        await asyncio.wait([question], timeout=_ANSWER_S)
        if not question.done():
            self._why = "the store does not answer"
        return self._why

    def close(self) -> None:
        """Wait for no answer any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _question(self) -> asyncio.Future[str]:
        """The question that is under way, or a new one."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._found)
            self._asking.add_done_callback(self._learn)
        return self._asking

    def _found(self) -> str:
        try:
            self._ask()
        except (BinsightError, OSError) as error:  # TimeoutError is one
            return str(error) or "the store does not answer"
        return ""

    def _learn(self, question: asyncio.Future[str]) -> None:
        if not question.cancelled() and question.exception() is None:
            self._why = question.result()

    def _away(self) -> Exception:
        return busy(self._why)
