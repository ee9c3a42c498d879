"""`binsight index`."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Annotated

import typer

from binsight.cli.output import print_json, progress_on_stderr
from binsight.cli.sources import IdPrefix, MetadataFile, Model, Prune, Root, Sources, tell_inputs
from binsight.ingest import IngestReport, ingest, list_sources
from binsight.settings import Settings
from binsight.store import check_kept, shown_url
from binsight.wiring import open_for_indexing


def index(
    sources: Sources,
    store: Annotated[str, typer.Option("--store", metavar="URL", help="The store to fill; made when it is not there.")],
    model: Model = None,
    metadata: MetadataFile = None,
    root: Root = None,
    id_prefix: IdPrefix = "",
    prune: Prune = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Bring a store up to date with pictures: new and changed ones are encoded, unchanged ones skipped.

    A picture that cannot be read is listed with its reason and does not stop the job (exit code 1 at the end). Killed at
    any time, the job goes on where it was when it is started again.
    """
    check_kept(store)
    settings = Settings.read()
    listings = list_sources(sources, metadata=metadata, root=root, id_prefix=id_prefix)
    started = perf_counter()
    encoder, opened = open_for_indexing(store, model, settings)
    load_s = perf_counter() - started
    with opened, progress_on_stderr("indexing") as progress:
        report = ingest(
            listings, encoder, opened, prune=prune, batch_size=settings.batch_size, workers=settings.workers, progress=progress
        )
    report = replace(report, load_s=load_s)
    if as_json:
        print_json(report.to_json())
    _tell(report, store, quiet=as_json)
    return 1 if report.refused else 0


def _tell(report: IngestReport, store: str, *, quiet: bool) -> None:
    tell_inputs(report)
    if not quiet:
        rate = f" ({report.images_per_s:.0f} images/s)" if report.indexed else ""
        print(  # noqa: T201, the command's answer
            f"{report.indexed} indexed, {report.unchanged} unchanged, {report.pruned} pruned, {report.skipped} skipped, "
            f"{len(report.refused)} refused; {report.took_s:.1f} s{rate} into {shown_url(store)}"
        )
