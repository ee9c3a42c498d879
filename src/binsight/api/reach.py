"""Whether a shared store is there: asked beside the calls that wait for it, so that nobody waits long for one that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, final

from binsight.api.problems import HttpProblem, busy
from binsight.errors import StoreUnavailable

T = TypeVar("T")
_PATIENCE_S = 0.6  # with a call, before the store is asked whether it is there
_ANSWER_S = 1.0  # for that question
_AGAIN_S = 0.2  # for the same once the store is known to be gone; a later answer still counts


@final
class Reach:
    """A store that is slow and one that is gone look the same to a call; a small question tells them apart.

    ask: what any store answers at once; raises StoreUnavailable or OSError where it is gone. It runs in a thread of its own,
    one at a time. While the store is known to be gone, calls are refused at once, and each refusal asks anew. Used from one
    thread, the event loop's.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reach")
        self._asking: asyncio.Future[object] | None = None
        self._why_gone = ""

    def expect(self) -> None:
        """Raise HttpProblem 503 where the store is known to be gone."""
        if self._why_gone:
            self._question()
            raise self._gone()

    async def check(self) -> None:
        """Raise what keeps the store from answering, HttpProblem 503 where it does not say."""
        question = self._question()
        await asyncio.wait([question], timeout=_AGAIN_S if self._why_gone else _ANSWER_S)
        if not question.done():
            self._why_gone = self._why_gone or "the store does not answer"
            raise self._gone()
        question.result()

    async def answered(self, call: asyncio.Future[T]) -> T:
        """What a call brings. Raises HttpProblem 503 once the store turns out to be gone; a call that has begun goes on."""
        try:
            while not (await asyncio.wait([call], timeout=_PATIENCE_S))[0]:
                await self.check()
            return call.result()
        except (StoreUnavailable, OSError) as error:
            self._why_gone = str(error) or "the store does not answer"
            raise
        finally:
            call.cancel()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _question(self) -> asyncio.Future[object]:
        """The one that is under way, or a new one."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
            self._asking.add_done_callback(self._learn)
        return self._asking

    def _learn(self, question: asyncio.Future[object]) -> None:
        if question.cancelled():
            return
        error = question.exception()
        self._why_gone = (str(error) or "the store does not answer") if isinstance(error, (StoreUnavailable, OSError)) else ""

    def _gone(self) -> HttpProblem:
        return busy(self._why_gone)
