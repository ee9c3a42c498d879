"""`binsight search`."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated

import typer

from binsight.cli.output import print_json, print_table, say, show, told
from binsight.counting import interval_in_words
from binsight.documents import answer_json
from binsight.fields import absent_fields
from binsight.filters import Filter, as_filter
from binsight.paths import shown
from binsight.search import checked_min_score
from binsight.settings import Settings
from binsight.store.base import VectorStore, checked_k
from binsight.wiring import open_searcher


def search(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The photo to search with.")],
    store: Annotated[str, typer.Option("--store", metavar="URL", help="The store to search in.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="M", help="Model name or folder; by default the one that filled the store.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many matches.")] = 10,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPR", help="""Only items like this: 'label = "ram" and quantity >= 2'.""")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="S", help="Leave out matches below this cosine, -1 to 1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> int:
    """Find the items of a store that look like a picture, nearest first, with their records."""
    checked_k(k)
    checked_min_score(min_score)
    parsed = as_filter(where)
    started = perf_counter()
    searcher = open_searcher(store, model, Settings.read())
    load_ms = 1000 * (perf_counter() - started)
    with searcher.store:
        found = searcher.timed(image, k=k, where=parsed, min_score=min_score)
        matches = found.answer.matches
        if not matches:
            _say_why(searcher.store, where, min_score)
    if as_json:
        took = {"load": load_ms, "encode": found.encode_ms, "search": found.search_ms}
        print_json({"query": shown(image)} | answer_json(found.answer, took))
        return 0
    if (seen := found.answer.count) is not None:
        show(f"items in the picture: {seen.value} ({interval_in_words(seen)})")
    rows = [
        (str(rank), f"{match.score:.3f}", match.item.id, told(match.item.metadata, without=("path",)))
        for rank, match in enumerate(matches, start=1)
    ]
    if rows:
        print_table(("#", "score", "id", "record"), rows, right=("#", "score"))
    return 0


def _say_why(store: VectorStore, where: str | None, min_score: float | None) -> None:
    """Why nothing was found. Only now is the store asked for its fields: in a large one that takes longer than the search."""
    held = len(store)
    if not held:
        say("no matches: the store is empty; fill it with `binsight index`")
        return
    reasons = [f"where {where!r}" if where else "", f"--min-score {min_score}" if min_score is not None else ""]
    say(f"no matches: none of the {held} items passes " + " and ".join(reason for reason in reasons if reason))
    if where is not None and (absent := absent_fields(store, Filter(where))):
        say(f"note: {absent}")
