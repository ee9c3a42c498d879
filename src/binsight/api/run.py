"""One server process, from its port to its end: SIGTERM lets running requests finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import final

import uvicorn

from binsight.api.app import create_app
from binsight.api.keys import Access, check_host, parse_keys
from binsight.api.logs import log_as_json
from binsight.api.metrics import Metrics
from binsight.api.server import Server
from binsight.api.service import Service, warm_up
from binsight.connections import protocol_of
from binsight.errors import BadSettings
from binsight.following import Followed
from binsight.heap import give_back_large_blocks
from binsight.listening import listening
from binsight.settings import Settings
from binsight.wiring import Models, open_with

_log = logging.getLogger(__name__)
_GRACE_S = 5.0  # beyond the deadline of a request, for its answer to be read


def serve(
    url: str,
    models: Sequence[str],
    settings: Settings,
    *,
    host: str,
    port: int,
    allow_anonymous: bool = False,
    read_only: bool = False,
    tls: tuple[str, str | None] | None = None,
) -> signal.Signals:
    """Answer requests until a signal; which one it was. models: by default the one that the store names.

    tls: files of the certificate with its chain, and of its key, None where the first holds both; without, plain HTTP.
    Raises BadSettings before anything is opened: for keys or certificates that cannot be read, for another address than this
    machine's own where there are no keys. What keeps the model or the store from opening is raised too, once the port is free
    again.
    """
    keys = parse_keys(settings.api_keys)
    check_host(host, keys, allow_anonymous=allow_anonymous)
    if tls is not None:
        _check_tls(*tls)
    followed, loaded = Followed(url), Models(models, settings)
    with listening(host, port) as listener:
        address = _address(listener, has_tls=tls is not None)

        def open_now(metrics: Metrics) -> Service:
            return followed.open(partial(open_service, loaded, settings, read_only, metrics, address))

        server = Server(open_now, settings, Access(keys, allow_anonymous=allow_anonymous), has_moved=followed.has_moved)
        give_back_large_blocks()
        log_as_json()
        ended_by = asyncio.run(_Process(server, settings, tls, listener).run())
    followed.close()
    if server.failure is not None:
        raise server.failure
    return ended_by


def _address(listener: socket.socket, *, has_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if has_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _check_tls(certificate: str, key: str | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")  # asks nobody
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = certificate if key is None else f"{certificate} and {key}"
        raise BadSettings(f"want a certificate and its key in PEM, without a password, got {files}: {error}") from error


def open_service(models: Models, settings: Settings, read_only: bool, metrics: Metrics, address: str, url: str) -> Service:
    """The service of a store, warm, with all of the models; the store's lock tells the server's address. Raises as `serve`."""
    encoder, store = open_with(url, models, read_only=read_only)
    try:
        store.tell_address(address)
        for other in models.loaded():
            if other is not encoder:  # that of the store that comes next: the alias does not wait while it is compiled
                warm_up(other, settings)
        return Service(encoder, store, settings, metrics)
    except BaseException:
        store.close()
        raise


@final
class _Process:
    """uvicorn with signals of our own: uvicorn's would end the process by the signal, with another exit code than 0."""

    def __init__(self, server: Server, settings: Settings, tls: tuple[str, str | None] | None, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._drain_s = settings.api_drain_s
        app = create_app(server, announce=self._announce, on_failure=self._stop)
        certificate, key = tls or (None, None)
        self._has_tls = tls is not None
        config = uvicorn.Config(
            app,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            http=protocol_of(settings.api_deadline_s),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",  # what it says of its start comes before there is anything to ask
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.api_deadline_s + _GRACE_S),
        )
        self._uvicorn = _Uvicorn(config)
        self._ended_by = signal.SIGTERM
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> signal.Signals:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._end, one)
        await self._uvicorn.serve(sockets=[self._listener])
        return self._ended_by

    def _announce(self) -> None:
        """Not sooner than the store and the model are open: who reads an address takes it for a server that has started."""
        host, port = self._listener.getsockname()[:2]
        _log.info("listening", extra={"host": host, "port": port, "tls": self._has_tls})

    def _end(self, by: signal.Signals) -> None:
        """Say "not ready" first, so that who sends requests here turns elsewhere; a second signal waits for nothing."""
        if self._draining is not None:
            self._uvicorn.force_exit = True
            self._stop()
            return
        self._ended_by = by
        self._server.is_draining = True
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        await asyncio.sleep(self._drain_s)
        self._stop()

    def _stop(self) -> None:
        self._uvicorn.should_exit = True


@final
class _Uvicorn(uvicorn.Server):
    """Leaves the signals alone."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
