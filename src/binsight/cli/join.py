"""`binsight join`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from binsight.cli.output import print_json, progress_on_stderr, say

if TYPE_CHECKING:
    from binsight.checkpoint import Checkpoint
    from binsight.data.source import Refusal


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
    mirrored: Annotated[
        int, typer.Option("--mirrored", min=0, help="How many of the counters, the last ones, look at the mirror image.")
    ] = 0,
    int8: Annotated[bool, typer.Option("--int8", help="Store the counters' weights in eight bits: half the size.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Put the vectors of one model and the counts of others into one folder that answers both in one pass.

    The vectors, and so the fingerprint, are those of the first model: stores that it filled stay good. All must be of one
    architecture and take the same pictures. Several counters give the mean of their logits; let --data and --split fix their
    intervals on pictures that none of them was trained on. --mirrored makes them differ more, at no cost; --int8 halves what
    each takes on disk.
    """
    from binsight.encoder import open_model
    from binsight.errors import BadSettings
    from binsight.model_folder import check_place, licence_text, write_joined

    if bool(data) != (split is not None):
        raise BadSettings("want --data and --split together: pictures, and which of them no model was trained on")
    text = licence_text(licence_file)
    fixed_on = _Pictures(data, split) if split is not None else None
    with ExitStack() as stack:
        first, *others = (stack.enter_context(open_model(name)) for name in (vectors, *counts))
        named = licence or next((one.licence for one in (*others, first) if one.licence), "")
        refused: tuple[Refusal, ...] = ()
        if fixed_on is None:
            made = write_joined(out, first, *others, licence=named, licence_text=text, mirrored=mirrored, int8=int8)
        else:
            check_place(out)
            apart = Path(stack.enter_context(TemporaryDirectory(prefix="binsight-"))) / (out.name or "model")
            joined = write_joined(apart, first, *others, licence=named, licence_text=text, mirrored=mirrored, int8=int8)
            made, refused = fixed_on.calibrate(joined, out)
    if fixed_on is None and len(counts) > 1:
        say("intervals are as wide as the widest model's; --data and --split fix them anew")
    for refusal in refused:
        say(f"refused: {refusal.path}: {refusal.error}")
    if as_json:
        print_json({"model": str(made.folder), "fingerprint": made.fingerprint, "vectors": vectors, "counts": counts})
    else:
        counting = ", ".join(counts)
        say(f"{made.folder}: the vectors of {vectors} (fingerprint {made.fingerprint[:12]}…), the counts of {counting}")
    return 1 if refused else 0


class _Pictures:
    """Labelled pictures that counts are calibrated on."""

    def __init__(self, data: str, split: Path) -> None:
        from binsight.data.labelled import open_labelled
        from binsight.data.splits import read_split
        from binsight.evaluation import VALIDATION

        self.labelled, self.split = open_labelled(data), read_split(split)
        self.split.of(VALIDATION)  # there are some
        self.note = {"data": data, "split": str(split), "part": VALIDATION}

    def calibrate(self, joined: Checkpoint, out: Path) -> tuple[Checkpoint, tuple[Refusal, ...]]:
        from binsight.encoder import load_encoder
        from binsight.errors import BadSettings
        from binsight.evaluation import Job, calibrate_counts
        from binsight.model_folder import recalibrate

        if joined.heads is None or joined.heads.count is None:
            raise BadSettings("the joined models have no count head to calibrate; leave --data and --split out")
        with progress_on_stderr("counting") as progress:
            job = Job(load_encoder(str(joined.folder)), self.labelled, self.split, self.note["part"], progress=progress)
            calibration, refused = calibrate_counts(job, joined.heads.count)
        return recalibrate(joined, calibration, note=self.note, folder=out), refused
