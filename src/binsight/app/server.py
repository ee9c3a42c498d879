"""uvicorn as the app runs it."""

from __future__ import annotations

from types import FrameType
from typing import final

import uvicorn

from binsight.app.visitors import Visitors
from binsight.connections import protocol_of

_PATIENCE_S = 30.0  # with a connection that brings no request, or does not read its answer
_ENDING_S = 5  # for running answers, once a signal has come


@final
class Server(uvicorn.Server):
    """Ends the streams of open pages when a signal comes; uvicorn would wait for them for ever."""

    def __init__(self, app: object, visitors: Visitors) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]  # any ASGI application
                http=protocol_of(_PATIENCE_S),
                log_level="warning",
                server_header=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=_ENDING_S,
            )
        )
        self._visitors = visitors

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._visitors.end()
        super().handle_exit(sig, frame)
