"""What one server process holds: its settings, who may call, what it takes on, and, once loaded, its service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import final

from starlette.requests import Request

from binsight.api.keys import Access, Scope
from binsight.api.metrics import Metrics
from binsight.api.places import Places, Turns
from binsight.api.problems import HttpProblem, busy
from binsight.api.reading import MOST_RECORD_BYTES
from binsight.api.service import Service
from binsight.api.uploads import Bodies
from binsight.errors import BinsightError
from binsight.settings import Settings

CALLER = "binsight.caller"  # in a request's scope: the name of its key
NOTE = "binsight.note"  # there, too: what its log line says beside, since the answer has no place for it
_LOOK_S = 0.5  # between looks at the alias
_LOOK_AGAIN_S = 5.0  # after one that could not be followed
_HELD_UPLOADS = 2  # bodies of the largest size that may be held together
_HELD_ANSWERS_BYTES = 96 * 2**20
_log = logging.getLogger(__name__)


@final
class Server:
    """The parts that routes use. `service` is None until the model is warm and the store is open, and after the end.

    open_service: loads and warms up; it runs in a thread, so that /healthz answers meanwhile. has_moved: whether it would now
    open another one, which then takes the place of the first without a request unanswered.
    """

    def __init__(
        self,
        open_service: Callable[[Metrics], Service],
        settings: Settings,
        access: Access,
        *,
        has_moved: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.access = access
        self.metrics = Metrics()
        most = settings.api_max_upload_bytes
        self.bodies = Bodies(most, Places("bytes of uploads", _HELD_UPLOADS * most))
        self.turns = Turns(MOST_RECORD_BYTES)
        self.answers = Places("bytes of answers", _HELD_ANSWERS_BYTES)
        self.service: Service | None = None
        self.failure: BaseException | None = None
        self.is_draining = False
        self.is_ending = False
        self._open_service = open_service
        self._has_moved = has_moved
        self._why_not_moved = ""
        self._retired: dict[asyncio.Task[None], Service] = {}
        self.metrics.watch("upload_bytes", lambda: self.bodies.held.taken)
        self.metrics.watch_ready(lambda: self.service is not None and not self.is_draining)

    async def load(self, announce: Callable[[], None] | None = None) -> None:
        """Open the service, then announce it; keeps what prevented it in `failure`, and raises it."""
        try:
            self.service = await asyncio.to_thread(self._open_service, self.metrics)
        except BaseException as error:
            self.failure = error
            raise
        if announce is not None:
            announce()
        _tell("ready", self.service)

    async def follow(self) -> None:
        """Answer from another store as soon as the alias names it, until the end. While it cannot be opened: not be ready."""
        while not self.is_ending:
            await asyncio.sleep(_LOOK_S if not self._why_not_moved else _LOOK_AGAIN_S)
            try:
                if not await asyncio.to_thread(self._has_moved):
                    self._why_not_moved = ""
                    continue
                await self._move()
            except Exception as error:  # noqa: BLE001, told by /readyz; the former store answers on
                self._why_not_moved = f"the alias, or the store behind it, cannot be opened: {error}"
                is_ours = isinstance(error, BinsightError | OSError)
                detail = {"error": type(error).__name__, "detail": str(error)}
                _log.warning("not moved", extra=detail, exc_info=None if is_ours else error)

    async def _move(self) -> None:
        """Requests that came before go on with the former service, which ends when the last of them must have."""
        fresh = await asyncio.to_thread(self._open_service, self.metrics)
        former, self.service = self.service, fresh
        self._why_not_moved = ""
        _tell("moved", fresh)
        if former is not None:
            self._retired[asyncio.create_task(self._retire(former))] = former

    async def _retire(self, former: Service) -> None:
        await asyncio.sleep(self.settings.api_deadline_s + _LOOK_S)
        await asyncio.to_thread(former.close)
        self._retired = {task: service for task, service in self._retired.items() if service is not former}

    async def close(self) -> None:
        """Let running work end."""
        service, self.service = self.service, None
        for task in self._retired:
            task.cancel()
        for one in (service, *self._retired.values()):
            if one is not None:
                await asyncio.to_thread(one.close)

    def admit(self, request: Request, scope: Scope) -> Service:
        """The service, for a caller that may. Raises HttpProblem: 401, 403, 429; 503 while it is not ready."""
        request.scope[CALLER] = self.access.check(request.headers, scope)
        if self.service is None:
            raise busy("the server is starting: its model is not loaded yet" if self.failure is None else str(self.failure))
        return self.service

    async def why_not_ready(self) -> str:
        """Empty when all is well: loaded, not about to end, the store within reach and filled by this model."""
        if self.is_draining:
            return "the server is about to end"
        if self.service is None:
            return "the model is not loaded yet"
        if self._why_not_moved:
            return self._why_not_moved
        try:
            await self.service.check()
        except (BinsightError, HttpProblem, OSError) as error:  # TimeoutError is one
            return str(error) or "the store does not answer"
        return ""


def _tell(event: str, service: Service) -> None:
    told = service.encoder
    detail = {"model": told.info.model, "fingerprint": told.info.fingerprint, "runtime": told.runtime}
    _log.info(event, extra=detail | {"items": len(service.store)})
