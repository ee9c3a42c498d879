"""Judge a model on the labelled pictures of one split: encode them, measure, and say what was left out.

What is written of it (JSON, tables, plots, the worst mistakes as pictures) is in `evaluation_files`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from binsight.counting import Calibration, fit_calibration
from binsight.data.files import open_files
from binsight.data.labelled import LabelledPicture, LabelledSet
from binsight.data.source import Refusal
from binsight.data.splits import Split, contradiction, leak
from binsight.errors import BadImage, BadSettings, BadSource
from binsight.evaluate import Figures, label_figures
from binsight.evaluate_count import UP_TO, count_figures
from binsight.evaluate_retrieval import (
    Questions,
    best_threshold,
    pair_accuracy,
    product_questions,
    retrieval_figures,
    same_label,
    shared_product,
)
from binsight.preprocess import Preprocess
from binsight.records import Encoded, StoreInfo

Progress: TypeAlias = Callable[[int, int], None]  # pictures done, of how many
Pixels: TypeAlias = NDArray[np.uint8]
_Element = TypeVar("_Element")
POOLED_FROM = 10  # items; fuller bins are one class
VALIDATION = "val"  # where a threshold on scores is fixed
_AHEAD = 2  # batches decoded while the model runs one


class PictureEncoder(Protocol):
    """What of an `Encoder` is used."""

    @property
    def info(self) -> StoreInfo: ...

    @property
    def preprocess(self) -> Preprocess: ...

    def encode_pixels(self, pixels: Pixels) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What is judged on what. batch_size: pictures encoded together. workers: threads that decode. seed: of the bootstrap."""

    encoder: PictureEncoder
    labelled: LabelledSet
    split: Split
    split_name: str = "test"
    batch_size: int = 64
    workers: int = 2
    seed: int = 0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 1:
            raise BadSettings(f"want batch_size and workers of at least 1, got {self.batch_size} and {self.workers}")


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome. report: what `evaluate … --json` prints. pictures, groups, encoded: a row a picture that was judged.

    refused: pictures of the split that were not judged, and why.
    """

    report: Figures
    pictures: tuple[LabelledPicture, ...]
    groups: tuple[str, ...]
    encoded: Encoded
    refused: tuple[Refusal, ...]


def evaluate_counts(job: Job, *, up_to: int = UP_TO) -> Judged:
    """Accuracy, errors, intervals and calibration of the model's counts (`evaluate_count.count_figures`).

    up_to: the figures on top are of bins with 0 … up_to items. Raises BadSettings when the model has no count head or no bin
    has so few items, BadSource when no picture of the split has a known count.
    """
    if not 1 <= up_to <= 1000:
        raise BadSettings(f"want --up-to from 1 to 1000, got {up_to}")
    judged = _judged(job, job.split_name, needs="count", lacks=_without_count)
    truth = [one.count for one in judged.pictures if one.count is not None]
    counts = judged.encoded.counts or []
    figures = count_figures(truth, counts, generator=_generator(job), groups=judged.groups, up_to=up_to)
    return _with(job, judged, figures)


def calibrate_counts(job: Job, calibration: Calibration) -> tuple[Calibration, tuple[Refusal, ...]]:
    """The model's calibration fixed anew, temperature and intervals, on the split's pictures with a known count.

    Beside it the pictures that were left out. calibration: the one that the model has now, whose kind, max_count and coverage
    stay. Raises as `evaluate_counts`.
    """
    judged = _judged(job, job.split_name, needs="count", lacks=_without_count)
    truth = [one.count for one in judged.pictures if one.count is not None]
    cold = fit_calibration(
        calibration.logits(judged.encoded.counts or []), truth, kind=calibration.kind, max_count=calibration.max_count,
        coverage=calibration.coverage,
    )  # fmt: skip
    return replace(cold, temperature=cold.temperature * calibration.temperature), judged.refused


def _without_count(one: LabelledPicture) -> str:
    if one.count is not None:
        return ""
    return "no known count" + ("; `binsight evaluate labels` judges classes" if one.label is not None else "")


def evaluate_labels(job: Job) -> Judged:
    """Top-1, top-5 and confusion of the model's classes (`evaluate.label_figures`).

    Raises BadSettings when the model has no label head, BadSource when no picture of the split has a known class.
    """
    judged = _judged(job, job.split_name, needs="label", lacks=lambda one: "" if one.label is not None else "no known class")
    truth = [one.label for one in judged.pictures if one.label is not None]
    answers = judged.encoded.labels or []
    return _with(job, judged, label_figures(truth, answers, generator=_generator(job), groups=judged.groups))


def evaluate_retrieval(job: Job, *, gallery: Sequence[str] = ()) -> Judged:
    """Recall, mAP@R and score distributions of the model's vectors: all pictures of the split are queries and gallery.

    gallery: other parts of the split, whose pictures are found too; in the outcome they come after the queries.

    Relevant are pictures that share a product where products are known ("product"), those of the same class where classes are
    ("label"); where both are, the figures on top are of products. Where products are known and the split has a validation
    part, "pairs" holds how often "is product X in this bin?" is answered right, by a threshold fixed there.
    Raises BadSource when neither is known.
    """
    asking = _judged(job, job.split_name, needs="embedding", lacks=lambda _: "")
    parts = list(dict.fromkeys((job.split_name, *gallery)))
    judged = _together([asking, *(_judged(job, name, needs="embedding", lacks=lambda _: "") for name in parts[1:])])
    queries = len(asking.pictures)
    rows, pictures = judged.encoded.vectors, judged.pictures
    by: dict[str, Figures] = {}
    if any(one.products for one in pictures):
        figures = retrieval_figures(
            rows, shared_product([one.products for one in pictures]), classes=_sizes(pictures), queries=queries
        )
        order = dict.fromkeys(_sizes(sorted(pictures[:queries], key=lambda one: -1 if one.count is None else one.count)))
        figures["per_class"] = {name: figures["per_class"][name] for name in order}
        by["product"] = figures
    if any(one.label is not None for one in pictures):
        labels = [one.label if one.label is not None else f"\0{place}" for place, one in enumerate(pictures)]
        figures = retrieval_figures(rows, same_label(labels), classes=labels, queries=queries)
        figures["per_class"] = {name: of for name, of in figures["per_class"].items() if not name.startswith("\0")}
        by["label"] = figures
    if not by:
        raise BadSource(f"retrieval needs classes or products; {job.labelled.root} ({job.labelled.kind}) has neither")
    main = next(iter(by))
    return _with(
        job,
        judged,
        {"n": queries, "gallery_parts": parts, "relevance": main, **by[main], "by": by, "pairs": _pairs(job, asking)},
    )


def _together(parts: Sequence[Judged]) -> Judged:
    return Judged(
        {},
        tuple(chain.from_iterable(one.pictures for one in parts)),
        tuple(chain.from_iterable(one.groups for one in parts)),
        _joined([one.encoded for one in parts]),
        tuple(chain.from_iterable(one.refused for one in parts)),
    )


def _sizes(pictures: Sequence[LabelledPicture]) -> list[str]:
    """How full the bins are, in words: the classes of bins."""
    words = {None: "not counted", 1: "1 item"}
    return [
        f"{POOLED_FROM} items or more" if (one.count or 0) >= POOLED_FROM else words.get(one.count, f"{one.count} items")
        for one in pictures
    ]


def _pairs(job: Job, judged: Judged) -> Figures | None:
    """ "Is product X in this bin?" asked of one reference picture, and of all; None where there is nothing to ask or fix."""
    if job.split_name == VALIDATION or VALIDATION not in job.split.sizes or not any(one.products for one in judged.pictures):
        return None
    fixing = _judged(job, VALIDATION, needs="embedding", lacks=lambda _: "")
    found: Figures = {"threshold_from": VALIDATION}
    for name, references in (("one_reference", 1), ("all_references", None)):
        fixed, asked = (_questions(each, references, job) for each in (fixing, judged))
        if not len(fixed.same) or not len(asked.same):
            return None
        threshold = best_threshold(fixed.same, fixed.different)
        accuracy = pair_accuracy(asked.same, asked.different, threshold=threshold)
        found[name] = {"questions": 2 * len(asked.same), "threshold": threshold, "accuracy": accuracy}
    return found


def _questions(judged: Judged, references: int | None, job: Job) -> Questions:
    products = [one.products for one in judged.pictures]
    return product_questions(judged.encoded.vectors, products, generator=_generator(job), references=references)


def _generator(job: Job) -> np.random.Generator:
    return np.random.default_rng(job.seed)


def _with(job: Job, judged: Judged, figures: Figures) -> Judged:
    """The same with a report: the figures, and what they are figures of."""
    info, split = job.encoder.info, job.split
    about: Figures = {
        "model": info.model,
        "fingerprint": info.fingerprint,
        "data": job.labelled.root,
        "split": {"name": job.split_name, "by": split.by, "sizes": split.sizes, "leak": _leak(job)},
        "seed": job.seed,
        "refused": [{"path": one.path, "error": one.error} for one in judged.refused],
    }
    return Judged(figures | about, judged.pictures, judged.groups, judged.encoded, judged.refused)


def _leak(job: Job) -> Figures | None:
    """What of val and test was met in training, by the pictures that the data hold; None where there is neither."""
    known = {one.uri for one in job.labelled.pictures}
    there = replace(job.split, rows=tuple(row for row in job.split.rows if row.path in known))
    if not there.sizes.keys() & {VALIDATION, "test"}:
        return None
    found = leak(there, job.labelled)
    return {name: getattr(found, name) for name in ("group_share", "product_share", "sister_share")}


def _judged(job: Job, split_name: str, *, needs: str, lacks: Callable[[LabelledPicture], str]) -> Judged:
    """The pictures of one split encoded; those that lack something, contradict the split or cannot be read are refused."""
    known = {one.uri: one for one in job.labelled.pictures}
    chosen: list[tuple[LabelledPicture, str]] = []
    refused: list[Refusal] = []
    for row in job.split.of(split_name):
        picture = known.get(row.path)
        why = contradiction(row, picture) or (lacks(picture) if picture is not None else "")
        if why or picture is None:
            refused.append(Refusal(row.path, why))
        else:
            chosen.append((picture, row.group))
    if not chosen:
        first = f"{refused[0].path}: {refused[0].error}"
        raise BadSource(f"no picture of {split_name!r} in {job.labelled.root} can be judged; the first is {first}")
    kept, encoded, unread = _encoded(job, [picture.uri for picture, _ in chosen], needs)
    pictures = tuple(chosen[place][0] for place in kept)
    return Judged({}, pictures, tuple(chosen[place][1] for place in kept), encoded, (*refused, *unread))


def _encoded(job: Job, uris: Sequence[str], needs: str) -> tuple[list[int], Encoded, list[Refusal]]:
    """Places of the pictures that could be read, what the model says of them, and the others."""
    kept: list[int] = []
    parts: list[Encoded] = []
    refused: list[Refusal] = []
    with ThreadPoolExecutor(job.workers, thread_name_prefix="binsight-decode") as pool:
        decoded = enumerate(_decoded(job, uris, pool))
        while batch := list(islice(decoded, job.batch_size)):
            good = [(place, one) for place, one in batch if not isinstance(one, BadImage)]
            refused += [Refusal(uris[place], str(one)) for place, one in batch if isinstance(one, BadImage)]
            if good:
                parts.append(_checked(job.encoder.encode_pixels(np.stack([one for _, one in good])), needs, job))
                kept += [place for place, _ in good]
            if job.progress is not None:
                job.progress(batch[-1][0] + 1, len(uris))
    if not parts:
        raise BadSource(f"none of {len(uris)} pictures can be read; the first is {refused[0].path}: {refused[0].error}")
    return kept, _joined(parts), refused


def _decoded(job: Job, uris: Sequence[str], pool: ThreadPoolExecutor) -> Iterator[Pixels | BadImage]:
    """Pixels in order, some batches ahead of the one that was taken."""

    def decode(data: bytes | BadImage) -> Pixels | BadImage:
        if isinstance(data, BadImage):
            return data
        try:
            return job.encoder.preprocess.pixels(data)
        except BadImage as error:
            return error

    running: deque[Future[Pixels | BadImage]] = deque()
    try:
        for _, data in open_files(job.labelled.root).read_all(uris):
            running.append(pool.submit(decode, data))
            if len(running) >= _AHEAD * job.batch_size:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _checked(part: Encoded, needs: str, job: Job) -> Encoded:
    """The same; BadSettings when the model lacks the head that is to be judged, naming those it has."""
    heads = {"embedding": part.vectors, "count": part.counts, "label": part.labels}
    if heads[needs] is None:
        there = ", ".join(name for name, answers in heads.items() if answers is not None)
        raise BadSettings(f"{job.encoder.info.model} has no {needs} head; it has: {there}; take a model trained with one")
    return part


def _joined(parts: Sequence[Encoded]) -> Encoded:
    def chained(lists: list[list[_Element] | None]) -> list[_Element] | None:
        there = [one for one in lists if one is not None]
        return [element for one in there for element in one] if len(there) == len(lists) else None

    labels: Any = chained([part.labels for part in parts])
    return Encoded(np.concatenate([part.vectors for part in parts]), chained([part.counts for part in parts]), labels)
