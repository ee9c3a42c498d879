"""`binsight serve`."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from binsight.errors import BadSettings
from binsight.settings import Settings

INTERRUPTED = 130


def serve(
    store: Annotated[str, typer.Option("--store", metavar="URL", help="The store to answer from.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="M", help="Model name or folder; several for an alias; by default the store's own."),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="H", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="P", min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Without API keys, let everybody who reaches the address read and write.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Take no lock on the store, and refuse writes; another process may index.")
    ] = False,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="Speak HTTPS with this certificate and its chain (PEM).")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="FILE", help="Its key; by default it is in the same file.")
    ] = None,
) -> int:
    """Answer searches and counts over HTTP. /docs lists the routes; BINSIGHT_API_KEYS says who may call.

    SIGTERM and Ctrl-C let running requests finish. A store that is not there is made, unless --read-only.
    Of an alias the store behind it is followed: when it names another one, that answers next, without a restart; give the
    models of both, which are then loaded before.
    """
    from binsight.api.run import serve as run  # late: fastapi is an extra, and other commands do not wait for it

    if tls_key is not None and tls_cert is None:
        raise BadSettings("--tls-key goes with --tls-cert, the certificate that it belongs to")
    ended_by = run(
        store,
        model or [],
        Settings.read(),
        host=host,
        port=port,
        allow_anonymous=allow_anonymous,
        read_only=read_only,
        tls=None if tls_cert is None else (tls_cert, tls_key),
    )
    return INTERRUPTED if ended_by == signal.SIGINT else 0
