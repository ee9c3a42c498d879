"""What answers requests: a store, and a model behind its stages. Threads work; the event loop only waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from time import perf_counter
from typing import TypeVar, final

from binsight.api.batching import Batcher, Pixels, Told
from binsight.api.metrics import Metrics, Stage
from binsight.api.places import Budget, Places
from binsight.api.reach import Reach
from binsight.encoder import Encoder
from binsight.errors import BadImage, ModelMismatch
from binsight.images import Limits, decoding_bytes
from binsight.patience import until
from binsight.search import Searcher
from binsight.settings import Settings
from binsight.store.base import VectorStore

T = TypeVar("T")
_READERS = 4  # threads that ask the store
_FILTERERS = 2  # and others that ask it with a filter, which may take long
_WRITERS = 16  # threads that change it: a shared server syncs together what arrives together
_WARM_SIZES = (1, 2, 4, 8, 16)
_DECODING_BYTES = 160 * 2**20  # of pictures that are decoded at the same time
_PIXEL_BYTES = 8  # that decoding may take for each pixel of the largest picture: a JPEG takes six, other kinds up to twenty


def warm_up(encoder: Encoder, settings: Settings) -> None:
    """Compile a model for one picture, few, and many."""
    for size in _WARM_SIZES:
        encoder.warm_up(min(size, settings.api_batch))


@final
class Service:
    """A model and a store that fit, warmed up. Raises ModelMismatch when they do not.

    Pictures and store calls have a bounded number of places each; beyond it a request is refused at once. A store call holds
    its place until it has really ended, also when nobody waits for it any more, so the queue of a store that hangs cannot grow.
    """

    def __init__(self, encoder: Encoder, store: VectorStore, settings: Settings, metrics: Metrics) -> None:
        self.searcher = Searcher(encoder, store)
        self.encoder = encoder
        self.store = store
        self.pictures = Places("pictures", settings.api_queue)
        self._calls = Places("store calls", 4 * settings.api_queue)
        self._picture_calls = Places("store calls of pictures", settings.api_queue)  # a picture that was encoded finds one
        self._limits = Limits(max_bytes=settings.api_max_upload_bytes, max_pixels=settings.api_max_pixels)
        self._memory = Budget(_DECODING_BYTES)
        self._most_decoding_bytes = _PIXEL_BYTES * settings.api_max_pixels
        self._metrics = metrics
        warm_up(encoder, settings)
        self._decoders = ThreadPoolExecutor(settings.workers, thread_name_prefix="decode")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="search")
        self._filterers = ThreadPoolExecutor(_FILTERERS, thread_name_prefix="filter")
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="write")
        self._reach = Reach(lambda: store.expect(encoder.info))
        self._is_shared = store.info.detail.get("kind") == "redis"
        self._batcher = Batcher(encoder, most=settings.api_batch, observe=metrics.model_pass)
        metrics.watch("pictures", lambda: self.pictures.taken)
        metrics.watch("model", lambda: self._batcher.waiting)
        metrics.watch("store", lambda: self._calls.taken + self._picture_calls.taken)

    async def told(self, image: bytes, took_ms: dict[str, float]) -> Told:
        """What the model says of a picture; adds to took_ms. Raises BadImage. The caller holds a place in `pictures`."""
        started = perf_counter()
        pixels = await asyncio.wrap_future(self._decoders.submit(self._decoded, image))
        decoded = perf_counter()
        answer = await asyncio.wrap_future(self._batcher.submit(pixels))
        took_ms["decode"] = 1000 * (decoded - started)
        took_ms["model"] = 1000 * (perf_counter() - decoded)
        return answer

    async def read(self, call: Callable[[], T], *, of_picture: bool = False, with_filter: bool = False) -> T:
        """A call that asks the store, in one of its threads. of_picture: for a picture that has passed the model already."""
        pool, places = self._filterers if with_filter else self._readers, self._picture_calls if of_picture else self._calls
        return await self._in_thread(pool, "search", call, places)

    async def write(self, call: Callable[[], T], *, of_picture: bool = False) -> T:
        """A call that changes the store. Once begun it ends, even if nobody waits for it."""
        return await self._in_thread(self._writers, "write", call, self._picture_calls if of_picture else self._calls)

    async def check(self) -> None:
        """Raise what keeps this service from answering: a store that cannot be reached, or another model's."""
        await self._reach.check()

    def expect_fingerprint(self, fingerprint: str | None) -> None:
        """Raise ModelMismatch for vectors that are told to be of another model; those of no known one are taken as of this."""
        mine = self.encoder.info.fingerprint
        if fingerprint is not None and fingerprint != mine:
            raise ModelMismatch(f"want vectors of the model with the fingerprint {mine}, got some of {fingerprint!r}")

    def close(self) -> None:
        """Let running work end, then let the store go."""
        self._decoders.shutdown()
        self._batcher.close()
        self._reach.close()
        self._readers.shutdown()
        self._filterers.shutdown()
        self._writers.shutdown()
        self.store.close()

    def _decoded(self, image: bytes) -> Pixels:
        started = perf_counter()
        wanted = decoding_bytes(image, limits=self._limits)
        if wanted > self._most_decoding_bytes:
            raise BadImage(
                f"decoding it takes {wanted:,} bytes, more than {self._most_decoding_bytes:,}; send it smaller, or as JPEG"
            )
        with self._memory.taking(wanted):
            pixels = self.encoder.preprocess.pixels(image, limits=self._limits)
        self._metrics.stage("decode", perf_counter() - started)
        return pixels

    async def _in_thread(self, pool: ThreadPoolExecutor, stage: Stage, call: Callable[[], T], places: Places) -> T:
        given_up = Event()

        def timed() -> T:
            started = perf_counter()
            try:
                with until(given_up):
                    return call()
            finally:
                self._metrics.stage(stage, perf_counter() - started)

        def ended(_: Future[T]) -> None:
            places.give_back()

        if self._is_shared:
            self._reach.expect()
        places.take()
        future = pool.submit(timed)
        future.add_done_callback(ended)
        asked = asyncio.wrap_future(future)
        try:
            return await (self._reach.answered(asked) if self._is_shared else asked)
        finally:
            given_up.set()
