"""`binsight demo`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from binsight.cli.output import print_json, progress_on_stderr, say


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for pictures, store and report.")] = Path(
        "binsight-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another warehouse.")] = 0,
    training_bins: Annotated[
        int, typer.Option("--training-bins", metavar="N", help="Bins to draw and learn from; with fewer it is done sooner.")
    ] = 1500,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", help="How often it sees each of them.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Train a small network on drawn bins, index a made-up warehouse, search it and count its bins in unseen views.

    Needs no data, no network and no weights; writes a contact sheet and a web page. Takes 200 s of CPU time.
    """
    from binsight.demo import run
    from binsight.demo_training import Recipe  # torch and timm

    recipe = Recipe(bins=training_bins, epochs=epochs)
    report = run(out, seed=seed, recipe=recipe, say=say, drawing=partial(progress_on_stderr, "drawing"))
    if as_json:
        print_json(report.to_json())
        return 0
    recall, count, trained = report.recall_at_1, report.count, report.trained
    constant = count["constant"]
    print(  # noqa: T201, the command's answer
        f"model      {trained.model.config.architecture}, {trained.parameters:,} weights, from random numbers: learned in "
        f"{trained.took_s:.0f} s from {trained.pictures} drawn pictures\n"
        f"           it finds and counts in what follows; it has never seen a photo, so do not use it on any\n"
        f"indexed    {report.indexed} pictures, {report.indexed // report.queries} of each part and bin, "
        f"{report.images_per_s:.0f} a second\n"
        f"recall@1   {recall['all']:.1%} of {report.queries} unseen views\n"
        f"           (parts {recall['part']:.1%}, learned in other views; bins {recall['bin']:.1%}, not learned at all)\n"
        f"counted    {count['accuracy']:.1%} of {count['n']} bins right to the item; the best constant answer: "
        f"{constant['accuracy']:.1%}\n"
        f"           RMSE of the mean {count['rmse_mean']:.2f} items; the best constant answer: {constant['rmse_mean']:.2f}\n"
        f"           its intervals hold the truth in {count['coverage']:.0%} of the bins (want 90%), and span "
        f"{count['width']:.1f} items\n"
        f"an answer  {report.search_ms:.1f} ms (decode, model and store)\n"
        f"look at    {report.page}\n"
        f"           {report.sheet}\n"
        f"try        {Path(sys.argv[0])} search {report.a_bin} --store {report.store}\n"
        f"           {Path(sys.argv[0])} count {report.a_bin} --model {report.folder / 'model'}\n"
        f"took       {report.took_s:.1f} s"
    )
    return 0
