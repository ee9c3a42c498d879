"""Clients that press on a server from processes of their own: `python -m tests.api.pressure flood|probe PORT …`, or from here.

A flood runs at the lowest priority: on a machine shared with the server it takes what the server leaves, as it would from
another machine. A probe asks one after the other and says how long each answer took.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Felt:
    """What a probe felt, in milliseconds, and the statuses it was answered with."""

    count: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    statuses: dict[str, int]


class Flood:
    """The same request, sent over and over by `clients` threads in `processes`, until the `with` ends.

    requests: files that each hold one whole HTTP request; the threads take them in turn. rate_per_s: of all together; as many
    as are answered where it is 0. `statuses` and `longest_refusal_ms` are known afterwards.
    """

    def __init__(self, port: int, *requests: Path, clients: int, rate_per_s: float = 0.0, nice: int = 19) -> None:
        self._command = [
            sys.executable,
            "-m",
            "tests.api.pressure",
            "flood",
            str(port),
            str(clients),
            str(rate_per_s),
            str(nice),
        ]
        self._command += map(str, requests)
        self.statuses: Counter[str] = Counter()
        self.longest_refusal_ms = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Flood:
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has begun
        return self

    def __exit__(self, *_: object) -> None:
        out, _err = self._process.communicate("end\n", timeout=90)
        told = json.loads(out)
        self.statuses.update(told["statuses"])
        self.longest_refusal_ms = told["longest_refusal_ms"]
        self.seconds = told["seconds"]


def felt(port: int, request: Path, seconds: float) -> Felt:
    """What a client of its own process feels who sends this request, one after the other."""
    command = [sys.executable, "-m", "tests.api.pressure", "probe", str(port), str(seconds), str(request)]
    return Felt(**json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout))


def request_bytes(method: str, path: str, body: bytes, kind: str, *, chunked: bool = False) -> bytes:
    """A whole request, as it goes over the wire."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()
    if not chunked:
        return head + body
    step = 65_536
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[at : at + step] for at in range(0, len(body), step))]
    return head + b"".join(chunks) + b"0\r\n\r\n"


def form_request(path: str, image: bytes) -> bytes:
    """A request with one picture."""
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n\r\n' + image + b"\r\n--b--\r\n"
    return request_bytes("POST", path, body, "multipart/form-data; boundary=b")


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """VmRSS: now. VmHWM: the most since the process began, or since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(what + ":")[1].split()[0]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(connection: socket.socket) -> str:
    """The status of the answer, which is read to its end; of a connection that broke, the error's name."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(65_536)
        if not part:
            return "closed"
        head += part
    text, _, rest = head.partition(b"\r\n\r\n")
    left = next((int(line[15:]) for line in text.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0) - len(rest)
    while left > 0 and (part := connection.recv(min(left, 1 << 20))):
        left -= len(part)
    return text.split(b" ", 2)[1].decode()


def _flood(port: int, clients: int, rate_per_s: float, nice: int, paths: list[str]) -> None:
    os.nice(nice)
    requests = [Path(path).read_bytes() for path in paths]
    statuses: Counter[str] = Counter()
    refusals_ms: list[float] = []
    ends, lock = threading.Event(), threading.Lock()
    begun = time.perf_counter()

    def ask(number: int) -> None:
        connection: socket.socket | None = None
        due = begun + number / rate_per_s if rate_per_s else 0.0
        while not ends.is_set():
            if rate_per_s:
                time.sleep(max(0.0, due - time.perf_counter()))
                due += clients / rate_per_s
            started = time.perf_counter()
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
                connection.sendall(requests[number % len(requests)])
                status = _status(connection)
            except OSError as error:
                status = type(error).__name__
            if connection is not None and status != "200" and not (status == "503" and rate_per_s):
                connection.close()
                connection = None
            with lock:
                statuses[status] += 1
                if status == "503":
                    refusals_ms.append(1000 * (time.perf_counter() - started))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    print("begun", flush=True)  # noqa: T201, what the starter waits for
    sys.stdin.readline()
    ends.set()
    seconds = time.perf_counter() - begun
    for thread in threads:
        thread.join(60)
    told = {"statuses": statuses, "longest_refusal_ms": max(refusals_ms, default=0.0), "seconds": seconds}
    print(json.dumps(told), flush=True)  # noqa: T201
    os._exit(0)


def _probe(port: int, seconds: float, path: str) -> None:
    head, _, body = Path(path).read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    took, statuses = [], Counter[str]()
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    ends = time.perf_counter() + seconds
    while (started := time.perf_counter()) < ends:
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            response.read()
            statuses[str(response.status)] += 1
        except (OSError, HTTPException) as error:
            connection.close()
            statuses[type(error).__name__] += 1
        took.append(1000 * (time.perf_counter() - started))
    took.sort()
    told = Felt(len(took), took[len(took) // 2], took[int(0.99 * len(took))], took[-1], statuses)
    print(json.dumps(told.__dict__))  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "flood":
        _flood(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
    else:
        _probe(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
