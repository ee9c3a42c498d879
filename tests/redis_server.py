"""A real Redis 8 for the tests: each starts its own on a free port of loopback, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

HOW = "no Redis 8 here: run `make redis` (as root; Debian's own, into .redis), or set BINSIGHT_REDIS_SERVER to a command"
_OURS = Path(__file__).parents[1] / ".redis" / "redis-server"


@cache
def _servers() -> list[tuple[int, tuple[str, ...]]]:
    """Version and command of each Redis server here."""
    named = shlex.split(os.environ.get("BINSIGHT_REDIS_SERVER", ""))
    servers = []
    for one in (named, [str(_OURS)], ["redis-server"]):
        if one and shutil.which(one[0]):
            told = subprocess.run([*one, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
            if found := re.search(r"v=(\d+)", told):
                servers.append((int(found[1]), tuple(one)))
    return servers


def command() -> tuple[str, ...]:
    """How a Redis of version 8 or newer is started; where there is none, the test is skipped with what would enable it."""
    found = [one for version, one in _servers() if version >= 8]
    return found[0] if found else pytest.skip(HOW)


def old_command() -> tuple[str, ...]:
    """The same of one without vector sets."""
    found = [one for version, one in _servers() if version < 8]
    return found[0] if found else pytest.skip("no Redis 7 here; Debian 12's package redis-server is one")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class RedisServer:
    """A server that can be stopped, killed and started again with what it kept."""

    folder: Path
    options: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "always")
    port: int = field(default_factory=free_port)
    program: tuple[str, ...] = ()  # by default, a Redis 8
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = self.program or command()
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*program, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client().ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.RedisError:
                told = (self.folder / "log").read_text(errors="replace")[-2000:]
                assert time.monotonic() < deadline and self.process.poll() is None, told  # noqa: PT018
                time.sleep(0.02)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=10, retry=Retry(NoBackoff(), 0))

    def url(self, index: str = "t", *, scheme: str = "redis", user: str = "", **parameters: object) -> str:
        rest = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"{scheme}://{user}127.0.0.1:{self.port}/0?index={index}{rest}"

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=30)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, options) if options else RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)


@contextmanager
def redis_cluster(folder: Path, *options: str) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots, none of which has a copy."""
    nodes: list[RedisServer] = []
    buses = [free_port() for _ in range(3)]
    try:
        for number, bus in enumerate(buses):
            more = (
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                "--cluster-port",
                str(bus),
                "--appendonly",
                "yes",
            )
            nodes.append(RedisServer(folder / str(number), (*more, *options)))
            nodes[-1].start()
        ends = (0, 5461, 10923, 16384)
        for node, first, after in zip(nodes, ends[:-1], ends[1:], strict=True):
            client: Any = node.client()
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        wait_until(lambda: all(b"cluster_state:ok" in _state(node) and b"nodes:3" in _state(node) for node in nodes))
        yield nodes
    finally:
        for node in nodes:
            node.end(signal.SIGKILL)


def _state(node: RedisServer) -> bytes:
    client: Any = node.client()
    said = client.execute_command("CLUSTER", "INFO")
    return said if isinstance(said, bytes) else "\n".join(f"{name}:{value}" for name, value in said.items()).encode()


def wait_until(is_so: Callable[[], bool], *, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
