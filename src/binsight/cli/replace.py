"""`binsight store alias` and `binsight store reembed`: one store takes another's place."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

import typer

from binsight.cli.output import print_json, progress_on_stderr, say, show
from binsight.errors import BadSettings, NotAStore, StoreDamaged, StoreUnavailable
from binsight.reembed import lacking, reembed, replace_behind
from binsight.settings import Settings
from binsight.store import Alias, VectorStore, open_alias, open_store, shown_url
from binsight.takeover import exchange, hold_for_followers
from binsight.wiring import encoder_for

Url = Annotated[str, typer.Argument(metavar="URL", help="The store, or an alias: a path or redis://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def alias(
    url: Annotated[str, typer.Argument(metavar="URL", help="The alias: a file's path, or redis://…?index=NAME.")],
    target: Annotated[
        str | None, typer.Argument(metavar="STORE", help="The store beside it that it names from now on; without, show it.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show which store an alias names, or let it name one: `store alias live.store parts-2.store`.

    Who was given the alias reads and writes there from then on; a running `binsight serve` follows. The store it named before
    takes no more writes (a shared one).
    """
    with open_alias(url) as name:
        former = name.target()
        target = target and name.name_of(target)
        told = shown_url(url)
        if target is None and former is None:
            raise NotAStore(f"{told} is no alias; `binsight store alias {told} STORE` makes one")
        lacks = _move(name, former, target) if target is not None and target != former else 0
    if lacks:
        say(f"{lacks} items of {former} are not in {target} as they are there; `binsight store reembed` would take them over")
    if as_json:
        print_json({"alias": told, "store": target or former, "former": former})
    else:
        show(f"{told} names {target or former}")
    return 0


def _move(name: Alias, former: str | None, target: str) -> int:
    """How many items of the store that it named are not in the new one: what was written there does not come along."""
    with ExitStack() as stack:
        if name.is_alias(target):
            raise BadSettings(f"{target} is an alias itself; want the name of a store")
        new = stack.enter_context(open_store(name.url_of(target)))
        old = None if former is None else _left(stack, name, former)
        if old is None or former is None:
            hold_for_followers(new, name)
            new.follow("")
            name.point_at(target, former=former)
            new.release_writes()
            return 0
        exchange(name, old, new, name=target, former=former)
        try:
            return lacking(old, new)
        except StoreUnavailable as error:
            say(f"how many items of {former} are not in {target} cannot be told: {error}")
            return 0


def _left(stack: ExitStack, name: Alias, former: str) -> VectorStore | None:
    """The store that an alias is to leave; None where it was deleted, or cannot be opened any more, which is said."""
    try:
        return stack.enter_context(open_store(name.url_of(former)))
    except NotAStore:
        return None
    except StoreDamaged as error:
        say(f"{former} is left as it is: {error}")
        return None


def reembed_store(
    url: Url,
    model: Annotated[str, typer.Option("--model", metavar="M", help="Name or folder of the model for the new store.")],
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAME", help="The new store, beside the former; by default named by its model."),
    ] = None,
    without_refused: Annotated[
        bool, typer.Option("--without-refused", help="Move the alias although some items could not be read again.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Read the pictures of a store again with another model, into a new store; an alias then names that one.

    The former store answers meanwhile and stays as it is, so `binsight store alias` leads back. Items whose picture cannot be
    read are listed (exit code 1), and the alias stays, unless --without-refused. Stopped and run again, it goes on.
    """
    settings = Settings.read()
    with open_alias(url) as name:
        former = name.target()
        encoder = encoder_for(model, settings)
        new = name.name_of(into or f"{_base(url)}-{encoder.info.fingerprint[:8]}")
        if new in (former, _base(url)) or name.is_alias(new):
            what = "an alias" if name.is_alias(new) else "the store that is read"
            raise BadSettings(f"{new} is {what}; give another model, or --into another store")
        with (
            open_store(name.url_of(former) if former else name.own_url, read_only=former is None) as source,
            open_store(name.url_of(new, is_new=True), create=encoder.info) as target,
            progress_on_stderr("reading again") as progress,
        ):
            read_again = partial(reembed, source, target, encoder)
            if former is not None:
                read_again = partial(
                    replace_behind, name, source, target, encoder, name=new, former=former, without_refused=without_refused
                )
            report = read_again(batch_size=settings.batch_size, workers=settings.workers, progress=progress)
    for refusal in report.refused:
        say(f"refused: {refusal.path}: {refusal.error}")
    if as_json:
        print_json({"from": former or _base(url), "into": new} | report.to_json())
    else:
        now = f"{shown_url(url)} names {new} now" if report.moved else f"{shown_url(url)} stays as it was"
        show(f"{report.indexed} read again, {report.unchanged} were there, {report.deleted} deleted, into {new}; {now}")
    return 1 if report.refused else 0


def _base(url: str) -> str:
    """The name of a store or an alias, without its place."""
    parts = urlsplit(url)
    return parse_qs(parts.query)["index"][0] if parts.scheme.startswith("redis") else Path(url.removeprefix("faiss:")).name
