"""`binsight evaluate count|labels|retrieval`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from binsight import evaluation, evaluation_files
from binsight.cli.menu import Menu
from binsight.cli.output import print_json, print_table, progress_on_stderr, say
from binsight.data.labelled import LabelledSet, open_labelled
from binsight.data.splits import read_split
from binsight.evaluate import Figures
from binsight.evaluate_count import UP_TO
from binsight.evaluation import Job, Judged
from binsight.evaluation_tables import Table, count_tables, label_tables, retrieval_tables
from binsight.settings import Settings
from binsight.wiring import encoder_for

app = typer.Typer(
    cls=Menu,
    help="Measure a model on labelled pictures that it was not trained on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SHOWN = 10  # refused pictures named on stderr; the report names all

Model = Annotated[str, typer.Option("--model", metavar="M", help="Model name or folder.")]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help="Labelled pictures: folder, manifest or s3://bucket.")]
SplitFile = Annotated[Path, typer.Option("--split", metavar="FILE", help="The split, from `binsight data split`.")]
SplitName = Annotated[str, typer.Option("--split-name", metavar="NAME", help="Which part of it: train, val or test.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write JSON, tables, plots and the worst mistakes here.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.command("count")
def count(
    model: Model,
    data: Data,
    split: SplitFile,
    split_name: SplitName = "test",
    up_to: Annotated[int, typer.Option("--up-to", metavar="N", help="Figures are of bins with 0 to N items.")] = UP_TO,
    out: Out = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """Accuracy, errors, intervals and calibration of counts, beside the best constant answer."""
    with progress_on_stderr("counting") as progress:
        job = _job(model, data, split, split_name, out, seed, progress)
        judged = evaluation.evaluate_counts(job, up_to=up_to)
    return _told(judged, job.labelled, out, as_json, count_tables, evaluation_files.write_counts)


@app.command("labels")
def labels(
    model: Model,
    data: Data,
    split: SplitFile,
    split_name: SplitName = "test",
    out: Out = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """Top-1, top-5 and confusion of classes, beside the best constant answer."""
    with progress_on_stderr("naming") as progress:
        job = _job(model, data, split, split_name, out, seed, progress)
        judged = evaluation.evaluate_labels(job)
    return _told(judged, job.labelled, out, as_json, label_tables, evaluation_files.write_labels)


@app.command("retrieval")
def retrieval(
    model: Model,
    data: Data,
    split: SplitFile,
    split_name: SplitName = "test",
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            "--gallery", metavar="NAME", help="Another part whose pictures are found, too; may be given several times."
        ),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """How often a picture finds another of its class, or one that shares a product, among those of the split."""
    with progress_on_stderr("searching") as progress:
        job = _job(model, data, split, split_name, out, seed, progress)
        for name in gallery or ():
            job.split.of(name)
        judged = evaluation.evaluate_retrieval(job, gallery=gallery or ())
    return _told(judged, job.labelled, out, as_json, retrieval_tables, evaluation_files.write_retrieval)


def _job(
    model: str, data: str, split: Path, split_name: str, out: Path | None, seed: int, progress: Callable[[int, int], None]
) -> Job:
    """What is to be judged; everything that can be wrong with the call is found before the model is loaded."""
    settings = Settings.read()
    chosen = read_split(split, allow_leak=True)
    chosen.of(split_name)
    labelled = open_labelled(data)
    if out is not None:
        evaluation_files.prepare(out)
    return Job(
        encoder_for(model, settings),
        labelled,
        chosen,
        split_name,
        batch_size=settings.batch_size,
        workers=settings.workers,
        seed=seed,
        progress=progress,
    )


def _told(
    judged: Judged,
    labelled: LabelledSet,
    out: Path | None,
    as_json: bool,
    tables: Callable[[Figures], list[Table]],
    write: Callable[[Judged, LabelledSet, Path], list[Path]],
) -> int:
    files = write(judged, labelled, out) if out is not None else []
    if as_json:
        print_json(judged.report | {"files": [str(file) for file in files]})
    else:
        _print(tables(judged.report))
    for line in _warnings(judged.report):
        say(f"warning: {line}")
    for refusal in judged.refused[:_SHOWN]:
        say(f"refused: {refusal.path}: {refusal.error}")
    if len(judged.refused) > _SHOWN:
        say(f"… and {len(judged.refused) - _SHOWN} more refused; --json names all")
    if files:
        say(f"written: {len(files)} files into {out}")
    return 1 if judged.refused else 0


def _print(tables: Sequence[Table]) -> None:
    for place, table in enumerate(tables):
        if place:
            print()  # noqa: T201, the command's answer
        print_table(table.columns, table.rows, right=table.columns[1:])


def _warnings(report: Figures) -> list[str]:
    """What a reader of the figures must know."""
    found = []
    split, collapse = report["split"], report.get("collapse", {"collapsed": False})
    if split["leak"] is not None and split["leak"]["group_share"] > 0:
        share = split["leak"]["product_share"]
        found.append(f"the split leaks: {share:.0%} of its val and test pictures share a product with train; figures flatter")
    if split["name"] == "train":
        found.append("these pictures are the split's training part; figures flatter a model that was trained on them")
    if collapse["collapsed"]:
        shares = f"for {collapse['share']:.0%} of the pictures, true of {collapse['true_share']:.0%}"
        found.append(f"the model has collapsed: it answers {collapse['answer']} {shares}")
    if report.get("unknown"):
        found.append(f"classes that the model does not know count as wrong: {', '.join(report['unknown'])}")
    beyond = report.get("all", {}).get("beyond_max_count", 0)
    if beyond:
        found.append(f"{beyond} pictures hold more than the {report['all']['max_count']} items that the model tells apart")
    return found
