"""Servers to test against: a process of its own, as `binsight serve` makes it, or an application in this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from binsight.api.app import create_app
from binsight.api.keys import Access, ApiKey
from binsight.api.server import Server
from binsight.api.service import Service
from binsight.encoder import Encoder
from binsight.settings import Settings
from binsight.store import VectorStore

T = TypeVar("T")
START_S = 60.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; httpx reads all usual authorities for each call and client
web = httpx.Client(verify=NO_TLS, limits=httpx.Limits(max_keepalive_connections=0))  # for httpx.get and its like, by http


class Process:
    """`binsight serve` on a free port, with a log that is read as it comes. Ends with the `with`."""

    def __init__(
        self, *arguments: str | Path, cache: Path, wait_ready: bool = True, ca: Path | None = None, **settings: object
    ) -> None:
        told = {f"BINSIGHT_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-W", "error", "-c", "from binsight.cli import main; main()", "serve", "--port", "0"]
        self._trusted = NO_TLS if ca is None else ssl.create_default_context(cafile=str(ca))
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._listening = threading.Event()
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            env=os.environ | {"BINSIGHT_CACHE": str(cache), "OMP_WAIT_POLICY": "PASSIVE"} | told,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""
        if wait_ready:
            try:
                self.wait_ready()
            except BaseException:  # there will be no `with` that ends it
                self.process.kill()
                raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                document = json.loads(line)
            except ValueError:
                self.other.append(line)
                continue
            self.lines.append(document)
            if document["event"] == "listening":
                self.url = f"{'https' if document['tls'] else 'http'}://127.0.0.1:{document['port']}"
                self._listening.set()

    def wait_listening(self) -> str:
        assert self._listening.wait(START_S), (self.lines, self.other)
        return self.url

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        self.wait_listening()
        while time.monotonic() < deadline and self.process.poll() is None:
            if httpx.get(f"{self.url}/readyz", verify=self._trusted).status_code == 200:
                return
            time.sleep(0.05)
        raise AssertionError((self.lines[-3:], self.other))

    def logged(self, **wanted: object) -> dict[str, Any]:
        """The first line that says this; waits a little for it."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if all(line.get(name) == value for name, value in wanted.items()):
                    return line
            time.sleep(0.02)
        raise AssertionError((wanted, self.lines[-5:]))

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(by)

    def end(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(START_S)
        self._reader.join(10)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self._reader.join(10)
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            self.process.stdout.close()
            self.process.stderr.close()


def in_process(
    encoder: Encoder,
    store: VectorStore,
    act: Callable[[httpx.AsyncClient], Awaitable[T]],
    *,
    keys: tuple[ApiKey, ...] = (),
    base_url: str = "http://127.0.0.1",
    **settings: object,
) -> T:
    """What `act` finds, asking an application of this model and store in this process."""
    told = Settings.read({f"BINSIGHT_{name.upper()}": str(value) for name, value in settings.items()})
    server = Server(lambda metrics: Service(encoder, store, told, metrics), told, Access(keys))

    async def run() -> T:
        app = create_app(server)
        async with app.router.lifespan_context(app):
            while server.service is None:
                assert server.failure is None, server.failure
                await asyncio.sleep(0.01)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url=base_url, timeout=60) as client:
                return await act(client)

    return asyncio.run(run())
