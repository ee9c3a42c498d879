"""`binsight store …`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, ClassVar

import typer

from binsight.cli.menu import Menu
from binsight.cli.output import print_json, print_table, progress_on_stderr, say, show, told
from binsight.documents import info_json
from binsight.records import Item, Metadata, StoreInfo
from binsight.store import check_kept, open_store
from binsight.store.copy import copy_items


class Verbs(Menu):
    """Of these, two know models."""

    late: ClassVar = {"alias": "binsight.cli.replace:alias", "reembed": "binsight.cli.replace:reembed_store"}


app = typer.Typer(cls=Verbs, help="Look into a store and look after it.", no_args_is_help=True, rich_markup_mode=None)

Url = Annotated[str, typer.Argument(metavar="URL", help="The store: a folder, faiss:PATH or redis://…")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of items.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command("info")
def info(url: Url, as_json: AsJson = False) -> int:
    """Show how many items a store holds, which model filled it, and how it is kept."""
    with open_store(url, read_only=True) as store:
        document = info_json(store.info)
    if as_json:
        print_json(document)
    else:
        print_table(("what", "value"), [(name, _plain(value)) for name, value in document.items()])
    return 0


@app.command("get")
def get(url: Url, ids: Ids, as_json: AsJson = False) -> int:
    """Show the records of items; an unknown id is named, and the exit code is then 1."""
    with open_store(url, read_only=True) as store:
        found = store.get(ids)
    pairs = list(zip(ids, found, strict=True))
    if as_json:
        print_json([_item_json(one, item) for one, item in pairs])
    else:
        print_table(("id", "record"), [(item.id, told(item.metadata)) for _, item in pairs if item is not None])
    missing = [one for one, item in pairs if item is None]
    for one in missing:
        say(f"binsight: no item has the id {one!r}")
    return 1 if missing else 0


@app.command("delete")
def delete(url: Url, ids: Ids, as_json: AsJson = False) -> int:
    """Delete items; an unknown id is named, and the exit code is then 1."""
    with open_store(url) as store:
        missing = [one for one, item in zip(ids, store.get(ids), strict=True) if item is None]
        deleted = store.delete(ids)
    if as_json:
        print_json({"deleted": deleted, "missing": missing})
    else:
        show(f"{deleted} deleted")
    for one in missing:
        say(f"binsight: no item has the id {one!r}")
    return 1 if missing else 0


@app.command("verify")
def verify(url: Url, as_json: AsJson = False) -> int:
    """Read everything and compare it with its checksums; exit code 3 when something does not agree."""
    with open_store(url, read_only=True) as store:
        report = store.verify()
    if as_json:
        print_json({"sound": report.is_sound} | asdict(report))
    else:
        show(f"{report.items} items, {len(report.problems)} problems")
    for problem in report.problems:
        say(f"binsight: {problem}")
    return 0 if report.is_sound else 3


@app.command("compact")
def compact(url: Url, as_json: AsJson = False) -> int:
    """Give back the room of replaced and deleted items and bring the index up to date."""
    with open_store(url) as store:
        store.compact()
        document = info_json(store.info)
    if as_json:
        print_json(document)
    else:
        show(f"{document['items']} items, compacted")
    return 0


@app.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store whose items are copied.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The store that gets them; made when it is not there.")],
    as_json: AsJson = False,
) -> int:
    """Copy all items into another store, of any kind; run again, it goes on. Exit code 3 when they differ at the end."""
    check_kept(target)
    with open_store(source, read_only=True) as first:
        info = first.info
        with open_store(target, create=StoreInfo(info.dim, info.fingerprint, info.model, info.metric)) as second:
            with progress_on_stderr("copying") as progress:
                report = copy_items(first, second, progress=progress)
            items = len(second)
    if as_json:
        print_json(asdict(report) | {"items": items})
    else:
        show(f"{report.copied} copied, {report.unchanged} were there already; it holds {items} now")
    for problem in report.problems[:10]:
        say(f"binsight: {problem}")
    return 3 if report.problems else 0


def _plain(value: object) -> str:
    """A value for people: `rows=5, lists=2` in place of a Python dict."""
    return ", ".join(f"{name}={one}" for name, one in value.items()) if isinstance(value, dict) else str(value)


def _item_json(one: str, item: Item | None) -> Metadata:
    return {"id": one, "error": "no such item"} if item is None else {"id": one, "metadata": item.metadata}
