"""A model hub on this machine: serves files as huggingface.co does, so that the real client is tested."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[str]:
    """Serve folders as repositories (`org/name` → folder); gives the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # the base class's name
            self._answer()

        def do_GET(self) -> None:
            content = self._answer()
            if content is not None:
                self.wfile.write(content)

        def _answer(self) -> bytes | None:
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            file = repositories.get(repository, Path("/none")) / rest.partition("/")[2]
            if self.path == "/" or not file.is_file():
                self.send_response(200 if self.path == "/" else 404)
                self.send_header("X-Error-Code", "EntryNotFound" if repository in repositories else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
