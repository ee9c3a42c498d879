"""A real HTTP proxy before a server, which makes chosen requests fail as networks and servers do."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit

Fault = Literal["503", "reset", "cut", "hang"]


@dataclass
class Faults:
    """What happens to requests for keys that end so, and how often (−1: always). asked: the path of each request."""

    wanted: dict[str, tuple[Fault, int]] = field(default_factory=dict)
    hang_s: float = 3.0
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, path: str) -> Fault | None:
        with self.lock:
            self.asked.append(path)
            for ending, (fault, times) in self.wanted.items():
                if path.endswith(ending) and times:
                    self.wanted[ending] = fault, times - 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behind: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.faults = urlsplit(behind).netloc, faults

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        faults = self.server.faults
        fault = faults.next(unquote(urlsplit(self.path).path))
        time.sleep(faults.delay_s)
        if fault == "hang":
            time.sleep(faults.hang_s)
        if fault in ("hang", "reset"):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if fault == "503":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        behind = http.client.HTTPConnection(self.server.behind, timeout=30)
        behind.request(self.command, self.path, headers=dict(self.headers))
        answer = behind.getresponse()
        body = answer.read()
        behind.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        if fault == "cut":
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815, the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@contextmanager
def faulty_proxy(behind: str, faults: Faults) -> Iterator[str]:
    """The address of a proxy before a server's address, while the block runs."""
    with _Server(behind, faults) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
