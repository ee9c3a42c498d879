"""`binsight demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from binsight.cli.output import print_json, say
from binsight.demo import run


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for pictures, store and report.")] = Path(
        "binsight-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another warehouse.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Draw a made-up warehouse, index it, search it with unseen views, and write a contact sheet and a web page.

    Needs no data, no network and no weights.
    """
    report = run(out, seed=seed, say=say)
    if as_json:
        print_json(report.to_json())
        return 0
    recall = report.recall_at_1
    print(  # noqa: T201, the command's answer
        f"model      {report.model} (hand-made features: nothing was learned)\n"
        f"indexed    {report.indexed} pictures, {report.images_per_s:.0f} a second\n"
        f"recall@1   {recall['all']:.1%} of {report.queries} unseen views "
        f"(parts {recall['part']:.1%}, bins {recall['bin']:.1%})\n"
        f"a search   {report.search_ms:.1f} ms (decode, model and store)\n"
        f"look at    {report.page}\n"
        f"           {report.sheet}\n"
        f"try        {Path(sys.argv[0])} search {report.a_query} --store {report.store}\n"
        f"took       {report.took_s:.1f} s"
    )
    return 0
