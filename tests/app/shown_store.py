"""Screens over a store, with the model whose answers one can compute.

python -m tests.app.shown_store STORE [PASSWORD [DELAY_S]]

A process of its own: Gradio leaves event loops and sockets to the collector, which the tests' own process takes for errors.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from binsight.app.backend import Local
from binsight.app.run import make_server
from binsight.listening import listening
from binsight.search import Searcher
from binsight.store import open_store
from tests.count_fakes import counting_encoder


def main(url: str, password: str = "", delay_s: str = "0") -> None:
    encoder = counting_encoder(delay_s=float(delay_s))
    with (
        TemporaryDirectory() as cache,
        closing(Local(Searcher(encoder, open_store(url, read_only=True)), url)) as backend,
        listening("127.0.0.1", 0) as listener,
    ):
        server = make_server(backend, Path(cache), password or None, is_local=not password)
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
