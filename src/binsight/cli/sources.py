"""What `binsight index` and the batch jobs are told alike, and how both tell what became of their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from binsight.cli.output import say
from binsight.ingest import IngestReport

_SHOWN = 20  # notes, and pictures without a row, that are told one by one

Sources = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="Folders, pictures, manifests, s3://BUCKET/PREFIX, abid:FOLDER, abid:s3://…"),
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="M", help="Model name or folder; by default the one that filled the store.")
]
MetadataFile = Annotated[
    Path | None, typer.Option("--metadata", metavar="FILE", help="CSV or JSON lines with a `path` and fields.")
]
Root = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Where a manifest's paths start; by default its own folder.")
]
IdPrefix = Annotated[str, typer.Option("--id-prefix", metavar="P", help="Put this before every id.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="Delete what these sources no longer hold; an item whose file is refused stays.")
]


def tell_inputs(report: IngestReport) -> None:
    """On stderr: every input that was refused, and the first ones that were taken with a note or without a row."""
    for refusal in report.refused:
        say(f"refused: {refusal.path}: {refusal.error}")
    _tell([f"note: {note.path}: {note.error}" for note in report.notes], "notes")
    _tell([f"no row for: {path} (indexed without)" for path in report.unlisted], "pictures without a row")


def _tell(lines: list[str], what: str) -> None:
    for line in lines[:_SHOWN]:
        say(line)
    if len(lines) > _SHOWN:
        say(f"… and {len(lines) - _SHOWN} more {what}")
