"""`binsight app`."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from binsight.cli.output import say
from binsight.errors import BadSettings
from binsight.settings import Settings

INTERRUPTED = 130


def app(
    store: Annotated[str | None, typer.Option("--store", metavar="URL", help="The store to answer from.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="M", help="Model name or folder; several for an alias; by default the store's own."),
    ] = None,
    api: Annotated[
        str | None, typer.Option("--api", metavar="URL", help="In place of a store: a server that `binsight serve` runs.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", envvar="BINSIGHT_API_KEY", help="That server's API key.")
    ] = None,
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="FILE", help="Certificates to trust (PEM), for that server's https.")
    ] = None,
    min_score: Annotated[
        float, typer.Option("--min-score", metavar="S", help="The score cut-off that visitors find set, from -1 to 1.")
    ] = 0.0,
    host: Annotated[str, typer.Option("--host", metavar="H", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="P", min=0, max=65535, help="The port; 0 takes a free one.")] = 7860,
    password: Annotated[
        str | None,
        typer.Option(
            "--password", metavar="WORD", envvar="BINSIGHT_APP_PASSWORD", help="Ask visitors for it; any name will do."
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Without a password, let everybody who reaches the address look.")
    ] = False,
) -> int:
    """Show screens in a browser: find a part, count a bin, check many bins against the books, look at the store.

    Only reads. Of an alias the store behind it is followed, as by `binsight serve`. Give a password by its environment variable
    rather than on the command line, which others can see.
    """
    if (store is None) == (api is None):
        raise BadSettings("want either --store URL, to answer from a store here, or --api URL, to ask a running server")
    if api is not None and model:
        raise BadSettings("--model goes with --store; the server at --api has a model of its own")
    if api is None and ca is not None:
        raise BadSettings("--ca goes with --api")
    from binsight.app.run import Source, serve  # late: gradio is an extra, and other commands do not wait for it

    source = Source(store=store, models=model or [], api=api, key=key, ca=ca)
    ended_by = serve(
        source,
        Settings.read(),
        min_score=min_score,
        host=host,
        port=port,
        password=password or None,
        allow_anonymous=allow_anonymous,
        say=say,
    )
    return INTERRUPTED if ended_by == signal.SIGINT else 0
