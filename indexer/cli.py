"""`python -m indexer run | load`: options to a job, its report to stdout, everything else to stderr."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from binsight.cli.entry import run_app
from binsight.cli.menu import Menu
from binsight.cli.output import log_to_stderr, print_json, progress_on_stderr, say, show
from binsight.cli.sources import IdPrefix, MetadataFile, Model, Prune, Root, Sources, tell_inputs
from binsight.data.part import Part
from binsight.errors import BadSettings, CannotBeDone
from binsight.paths import user_path
from binsight.settings import Settings
from binsight.store import check_kept
from indexer.display import Display
from indexer.job import Job, JobReport, run_job

app = typer.Typer(
    name="indexer",
    cls=Menu,
    help="Batch jobs: pictures from folders, manifests, buckets or ABID into a store, or into shards that any store loads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.command("run")
def run_command(
    sources: Sources,
    store: Annotated[str, typer.Option("--store", metavar="URL", help="A store's URL, or shards:FOLDER; made when not there.")],
    model: Model = None,
    metadata: MetadataFile = None,
    root: Root = None,
    id_prefix: IdPrefix = "",
    prune: Prune = False,
    part: Annotated[str, typer.Option("--part", metavar="I/N", help="Take only part I (from 1) of N, for job arrays.")] = "1/1",
    count_field: Annotated[
        str | None,
        typer.Option("--count-field", metavar="NAME", help="Where a counting model's count is stored: NAME, NAME_low, …"),
    ] = None,
    no_count: Annotated[bool, typer.Option("--no-count", help="Store no count, even if the model counts.")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait-s", metavar="S", help="How long to wait for a store that goes away or is held.")
    ] = 60.0,
    shard_items: Annotated[int, typer.Option("--shard-items", metavar="N", help="Items of one finished shard.")] = 4096,
    as_json: AsJson = False,
) -> int:
    """Bring a store up to date with pictures. Stopped at any time, the same command goes on where it was."""
    if count_field == "" or (no_count and count_field is not None):
        raise typer.BadParameter("want a name for --count-field, or --no-count without it")
    check_kept(store)
    job = Job(
        tuple(sources),
        store,
        model,
        metadata,
        root,
        id_prefix,
        prune,
        Part.parse(part),
        "" if no_count else count_field,
        wait_s,
        shard_items,
    )
    report = run_job(job, Settings.read(), Display())
    if as_json:
        print_json(report.to_json())
    _tell(report, quiet=as_json)
    return 1 if report.ingested.refused else 0


def _tell(report: JobReport, *, quiet: bool) -> None:
    found = report.ingested
    tell_inputs(found)
    if not quiet:
        told = report.to_json()
        show(
            f"{found.indexed} indexed, {found.unchanged} unchanged, {found.pruned} pruned, {found.skipped} skipped, "
            f"{len(found.refused)} refused; {found.took_s:.1f} s ({found.images_per_s:.0f} images/s, bottleneck: "
            f"{told['bottleneck']}) into {told['store']}, which holds {report.items} items"
        )


@app.command("load")
def load_command(
    shards: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that a job with --store shards:FOLDER filled.")],
    store: Annotated[str, typer.Option("--store", metavar="URL", help="The store to fill; made when it is not there.")],
    as_json: AsJson = False,
) -> int:
    """Load shards into a store of any kind, checking every file. Run again, it goes on; at the end all is compared."""
    from indexer.loading import load_shards  # late: pyarrow is an extra

    check_kept(store)
    with progress_on_stderr("loading") as progress:
        report = load_shards(user_path(shards, error=BadSettings), store, progress=progress)
    if as_json:
        print_json({"loaded": report.copied, "unchanged": report.unchanged, "problems": report.problems})
    else:
        show(f"{report.copied} loaded, {report.unchanged} unchanged")
    for problem in report.problems:
        say(f"indexer: {problem}")
    return CannotBeDone.exit_code if report.problems else 0


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what is being done.")] = False,
) -> None:
    log_to_stderr("indexer", verbose=verbose)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv by default) and return its exit code. SIGTERM ends a job as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run_app(app, "indexer", arguments)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
