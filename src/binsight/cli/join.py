"""`binsight join`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binsight.cli.output import print_json, progress_on_stderr, say

if TYPE_CHECKING:
    from binsight.checkpoint import Checkpoint


def join(
    vectors: Annotated[str, typer.Option("--vectors", metavar="M", help="The model whose vectors are kept.")],
    counts: Annotated[
        list[str],
        typer.Option("--counts", metavar="M", help="A model whose counts and classes are added; several count together."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Model folder to write.")],
    licence: Annotated[str, typer.Option("--licence", help="Of the weights of both, for the card.")] = "",
    licence_file: Annotated[
        Path | None, typer.Option("--licence-file", metavar="FILE", help="Its text, put beside them.")
    ] = None,
    data: Annotated[
        str,
        typer.Option("--data", metavar="SOURCE", help="Labelled pictures to fix the temperature and intervals of counts on."),
    ] = "",
    split: Annotated[
        Path | None, typer.Option("--split", metavar="FILE", help="Their split, of which the val part is used.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Put the vectors of one model and the counts of others into one folder that answers both in one pass.

    The vectors, and so the fingerprint, are those of the first model: stores that it filled stay good. All must be of one
    architecture and take the same pictures. Several counters give the mean of their logits; let --data and --split fix their
    intervals on pictures that none of them was trained on.
    """
    from binsight.encoder import open_model
    from binsight.errors import BadSettings
    from binsight.model_folder import write_joined

    if licence_file is not None and not licence_file.is_file():
        raise BadSettings(f"--licence-file: no such file: {licence_file}")
    if bool(data) != (split is not None):
        raise BadSettings("want --data and --split together: pictures, and which of them no model was trained on")
    with ExitStack() as stack:
        first, *others = (stack.enter_context(open_model(name)) for name in (vectors, *counts))
        text = licence_file.read_text(encoding="utf-8") if licence_file is not None else None
        named = licence or next((one.licence for one in (*others, first) if one.licence), "")
        made = write_joined(out, first, *others, licence=named, licence_text=text)
    if split is not None:
        made = _calibrated(made, data, split)
    elif len(counts) > 1:
        say("intervals are as wide as the widest model's; --data and --split fix them anew")
    if as_json:
        print_json({"model": str(made.folder), "fingerprint": made.fingerprint, "vectors": vectors, "counts": counts})
    else:
        counting = ", ".join(counts)
        say(f"{made.folder}: the vectors of {vectors} (fingerprint {made.fingerprint[:12]}…), the counts of {counting}")
    return 0


def _calibrated(made: Checkpoint, data: str, split: Path) -> Checkpoint:
    from binsight.data.labelled import open_labelled
    from binsight.data.splits import read_split
    from binsight.encoder import load_encoder
    from binsight.errors import BadSettings
    from binsight.evaluation import VALIDATION, Job, calibrate_counts
    from binsight.model_folder import recalibrate

    if made.heads is None or made.heads.count is None:
        raise BadSettings(f"{made.folder} has no count head to calibrate; leave --data and --split out")
    labelled = open_labelled(data)
    with progress_on_stderr("counting") as progress:
        job = Job(load_encoder(str(made.folder)), labelled, read_split(split), VALIDATION, progress=progress)
        calibration = calibrate_counts(job, made.heads.count)
    return recalibrate(made, calibration, note={"data": data, "split": str(split), "part": VALIDATION})
