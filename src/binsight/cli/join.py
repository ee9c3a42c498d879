"""`binsight join`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from binsight.cli.output import print_json, say


def join(
    vectors: Annotated[str, typer.Option("--vectors", metavar="M", help="The model whose vectors are kept.")],
    counts: Annotated[str, typer.Option("--counts", metavar="M", help="The model whose counts and classes are added.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Model folder to write.")],
    licence: Annotated[str, typer.Option("--licence", help="Of the weights of both, for the card.")] = "",
    licence_file: Annotated[
        Path | None, typer.Option("--licence-file", metavar="FILE", help="Its text, put beside them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Put the vectors of one model and the counts of another into one folder that answers both in one pass.

    The vectors, and so the fingerprint, are those of the first model: stores that it filled stay good. Both must be of one
    architecture and take the same pictures.
    """
    from binsight.encoder import open_model
    from binsight.errors import BadSettings
    from binsight.model_folder import write_joined

    if licence_file is not None and not licence_file.is_file():
        raise BadSettings(f"--licence-file: no such file: {licence_file}")
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_model(name)) for name in (vectors, counts))
        text = licence_file.read_text(encoding="utf-8") if licence_file is not None else None
        made = write_joined(out, first, second, licence=licence or second.licence or first.licence, licence_text=text)
    if as_json:
        print_json({"model": str(made.folder), "fingerprint": made.fingerprint, "vectors": vectors, "counts": counts})
    else:
        say(f"{made.folder}: the vectors of {vectors} (fingerprint {made.fingerprint[:12]}…), the counts of {counts}")
    return 0
