"""`binsight count`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from binsight.cli.output import print_json, print_table, progress_on_stderr, say
from binsight.counting import interval_in_words
from binsight.documents import count_json
from binsight.encoder import Encoder
from binsight.errors import BadImage, BadSettings
from binsight.records import Count
from binsight.settings import Settings
from binsight.wiring import encoder_for


def count(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="The photos whose items are counted.")],
    model: Annotated[str, typer.Option("--model", metavar="M", help="A model with a count head: its folder or hub name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> int:
    """Say how many items each picture shows, how sure that is, and an interval that holds the truth as often as it says.

    A picture that cannot be read is named with its reason and does not stop the others (exit code 1 at the end).
    """
    settings = Settings.read()
    encoder = encoder_for(model, settings)
    if encoder.heads.count is None:
        raise BadSettings(f"the model {model} has no count head; train one with `binsight train --count-head softmax`")
    with progress_on_stderr("counting") as progress:
        answers: list[Count | BadImage] = []
        for answer in counted(encoder, images, batch_size=settings.batch_size, workers=settings.workers):
            answers.append(answer)
            progress(len(answers), len(images))
    told = list(zip(images, answers, strict=True))
    if as_json:
        print_json([_json(path, answer) for path, answer in told])
    elif rows := [_row(path, answer) for path, answer in told if isinstance(answer, Count)]:
        print_table(("path", "count", "sure", "expected", "interval"), rows, right=("count", "sure", "expected", "interval"))
    refused = [(path, answer) for path, answer in told if isinstance(answer, BadImage)]
    for path, error in refused:
        say(f"refused: {path}: {error}")
    return 1 if refused else 0


def counted(encoder: Encoder, images: Sequence[str], *, batch_size: int, workers: int) -> Iterator[Count | BadImage]:
    """For each picture in order its count, or why it was refused. encoder: of a model with a count head."""

    def decode(path: str) -> NDArray[np.uint8] | BadImage:
        try:
            return encoder.preprocess.pixels(path)
        except BadImage as error:
            return error

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for start in range(0, len(images), batch_size):
            decoded = list(pool.map(decode, images[start : start + batch_size]))
            good = [one for one in decoded if not isinstance(one, BadImage)]
            counts = iter(encoder.encode_pixels(np.stack(good)).counts or () if good else ())
            yield from (one if isinstance(one, BadImage) else next(counts) for one in decoded)


def _json(path: str, answer: Count | BadImage) -> dict[str, Any]:  # JSON
    """One row of `count --json`."""
    if isinstance(answer, BadImage):
        return {"path": path, "error": str(answer)}
    return {"path": path} | count_json(answer)


def _row(path: str, answer: Count) -> tuple[str, ...]:
    sure = f"{answer.probabilities[answer.value]:.0%}"
    return path, str(answer.value), sure, f"{answer.expected:.1f}", interval_in_words(answer)
