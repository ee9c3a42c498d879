"""One process that shows the screens, from its port to its end."""

from __future__ import annotations

import hmac
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from binsight.app.backend import Backend, Local, Remote
from binsight.app.followed import FollowedStore
from binsight.app.loading import load_gradio
from binsight.app.visitors import Visitors
from binsight.errors import BadSettings, MissingExtra
from binsight.listening import is_loopback, listening
from binsight.search import Searcher, checked_min_score
from binsight.settings import Settings
from binsight.wiring import Models, open_with

if TYPE_CHECKING:
    import uvicorn

_TIMEOUT_S, _RETRIES = 30.0, 1  # of a server that is asked: somebody waits


@dataclass(frozen=True, slots=True)
class Source:
    """Where answers come from: a store and its model, or the URL of a server with its key, and certificates to trust.

    models: by default the one that the store names; of several, for an alias, the one that filled the store behind it.
    """

    store: str | None = None
    models: Sequence[str] = ()
    api: str | None = None
    key: str | None = None
    ca: str | None = None


def serve(
    source: Source,
    settings: Settings,
    *,
    min_score: float,
    host: str,
    port: int,
    password: str | None,
    allow_anonymous: bool,
    say: Callable[[str], None],
) -> signal.Signals:
    """Show the screens until a signal; which one it was. min_score: the cut-off that visitors find set. password: what they are
    asked for, None for nothing.

    Raises BadSettings for a cut-off that is no cosine, and for another address than this machine's own without a password;
    MissingExtra without gradio; and what keeps the store, the model or the server from being reached.
    """
    checked_min_score(min_score)
    if password is None and not allow_anonymous and not is_loopback(host):
        raise BadSettings(
            f"without a password the app listens on 127.0.0.1 only, not on {host}; set BINSIGHT_APP_PASSWORD, or pass "
            "--allow-anonymous where everybody who reaches it may look"
        )
    with (
        listening(host, port) as listener,
        TemporaryDirectory(prefix="binsight-app-") as cache,
        closing(open_backend(source, settings)) as backend,
        _ended_by_signals() as ended_by,
    ):
        server = make_server(
            backend, Path(cache), password, is_local=password is None and not allow_anonymous, min_score=min_score
        )
        shown = f"[{host}]" if ":" in host else host
        say(f"the app is at http://{shown}:{listener.getsockname()[1]}; Ctrl-C ends it")
        if not ended_by:  # a signal may have come while Gradio was being loaded
            server.run(sockets=[listener])
        return ended_by[0] if ended_by else signal.SIGTERM


def open_backend(source: Source, settings: Settings) -> Backend:
    """What answers, reached and warm."""
    if source.api is None:
        assert source.store is not None
        return FollowedStore(source.store, partial(_open_local, Models(source.models, settings)))
    from binsight.client import Client  # late: httpx is an extra

    client = Client(source.api, source.key, ca=source.ca, timeout_s=_TIMEOUT_S, retries=_RETRIES)
    try:
        client.info()
    except BaseException:
        client.close()
        raise
    return Remote(client)


def _open_local(models: Models, url: str) -> Local:
    encoder, store = open_with(url, models, read_only=True)
    encoder.warm_up()
    return Local(Searcher(encoder, store), url)


def make_server(
    backend: Backend, cache: Path, password: str | None, *, is_local: bool, min_score: float = 0.0
) -> uvicorn.Server:
    """The screens over a backend, as a server that is not yet running. cache: an empty folder for uploads and thumbnails.

    is_local: whether only calls to this machine by its own names are answered. Raises MissingExtra.
    """
    shown, work = cache / "shown", cache / "work"
    for folder in (shown, work):
        folder.mkdir()
    # Gradio reads its environment when it is imported: no telemetry, no other folder than ours.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(shown)}
    try:
        load_gradio()
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "gradio", extra="app") from error
    from binsight.app.guard import Guard
    from binsight.app.screens import build, mounted
    from binsight.app.server import Server

    check = None if password is None else lambda _, word: hmac.compare_digest(word.encode(), password.encode())
    visitors = Visitors()
    page = build(backend, visitors, shown, work, min_score=min_score)
    guard = Guard(
        mounted(page, check), cache=cache, uploads=shown, questions=len(page.fns), visitors=visitors, is_local=is_local
    )
    return Server(guard, visitors)


@contextmanager
def _ended_by_signals() -> Iterator[list[signal.Signals]]:
    """The signals that came. uvicorn ends on them, and then sends them once more, which would end the process by a signal."""
    came: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(signal.Signals(number))

    before = {one: signal.signal(one, note) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
