"""What one server process holds: its settings, who may call, what it takes on, and, once loaded, its service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import final

from starlette.requests import Request

from binsight.api.keys import Access, Scope
from binsight.api.metrics import Metrics
from binsight.api.places import Places
from binsight.api.problems import HttpProblem, busy
from binsight.api.service import Service
from binsight.api.uploads import Bodies
from binsight.errors import BinsightError
from binsight.settings import Settings

CALLER = "binsight.caller"  # in a request's scope: the name of its key
_HELD_UPLOADS = 3  # bodies of the largest size that may be held together
_HELD_ANSWERS_BYTES = 96 * 2**20
_log = logging.getLogger(__name__)


@final
class Server:
    """The parts that routes use. `service` is None until the model is warm and the store is open, and after the end.

    open_service: loads and warms up; it runs in a thread, so that /healthz answers meanwhile.
    """

    def __init__(self, open_service: Callable[[Metrics], Service], settings: Settings, access: Access) -> None:
        self.settings = settings
        self.access = access
        self.metrics = Metrics()
        most = settings.api_max_upload_bytes
        self.bodies = Bodies(most, Places("bytes of uploads", _HELD_UPLOADS * most))
        self.answers = Places("bytes of answers", _HELD_ANSWERS_BYTES)
        self.service: Service | None = None
        self.failure: BaseException | None = None
        self.is_draining = False
        self._open_service = open_service
        self.metrics.watch("upload_bytes", lambda: self.bodies.held.taken)
        self.metrics.watch_ready(lambda: self.service is not None and not self.is_draining)

    async def load(self) -> None:
        """Open the service; keeps what prevented it in `failure`, and raises it."""
        try:
            self.service = await asyncio.to_thread(self._open_service, self.metrics)
        except BaseException as error:
            self.failure = error
            raise
        told = self.service.encoder
        _log.info("ready", extra={"model": told.info.model, "runtime": told.runtime, "items": len(self.service.store)})

    async def close(self) -> None:
        """Let running work end."""
        service, self.service = self.service, None
        if service is not None:
            await asyncio.to_thread(service.close)

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
        try:
            await self.service.check()
        except (BinsightError, HttpProblem, OSError) as error:  # TimeoutError is one
            return str(error) or "the store does not answer"
        return ""
