"""What is in a set: counts, classes, products, sizes, label noise, near-duplicates, and what a split leaks."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from binsight.data.groups import product_groups, sister_shots
from binsight.data.labelled import LabelledPicture, LabelledSet
from binsight.data.likeness import BITS, near_pairs, perceptual_hash
from binsight.data.source import Refusal
from binsight.data.splits import TRAIN, Leak, Split, crossing_groups, leak
from binsight.errors import BadImage, BadSettings
from binsight.images import decode
from binsight.records import Metadata

NEAR_BITS = 4  # of 64: on ABID, 28 of the 31 pairs as near as this share a product; at 6 bits, 58 of 104
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture that was opened. sha256: of its file; hash: perceptual."""

    picture: LabelledPicture
    width_px: int
    height_px: int
    file_bytes: int
    sha256: bytes
    hash: int


@dataclass(frozen=True, slots=True)
class Products:
    """distinct: products; in_one_picture: those that one picture only shows; most_common: (product, pictures)."""

    distinct: int
    in_one_picture: int
    pictures_without: int
    mean_per_picture: float
    pictures_of: dict[int, int]  # n pictures: so many products
    most_common: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of pictures that a chain of shared products joins. sizes: n pictures: so many groups."""

    n: int
    largest: int
    sizes: dict[int, int]


@dataclass(frozen=True, slots=True)
class Sisters:
    """Pictures of neighbouring numbers that share a product: mostly two shots of a bin, before and after.

    pairs: of them; pictures: with such a sister; same_count, differ_by_one: pairs whose counts do so.
    """

    pairs: int
    pictures: int
    same_count: int
    differ_by_one: int


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two pictures that look alike. bits: of 64 that differ; contradicts: one file, or one look, with two counts or classes."""

    a: str
    b: str
    bits: int
    is_same_file: bool
    are_sisters: bool
    contradicts: bool


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """sizes, counts, labels: pictures by split; crossing: groups in more than one split; leak: measured on the products.

    near_crossing: pairs of near-duplicates of which one is in train and the other in val or test.
    """

    by: str
    sizes: dict[str, int]
    counts: dict[str, dict[int, int]]
    labels: dict[str, dict[str, int]]
    crossing: int
    near_crossing: int
    leak: Leak


@dataclass(frozen=True, slots=True)
class DataReport:
    """Everything that is told of a set. quantiles: at 0, 5, 25, 50, 75, 95 and 100 percent of the pictures opened."""

    source: str
    kind: str
    pictures: int
    opened: int
    counts: dict[int, int]
    labels: dict[str, int]
    products: Products | None
    groups: Groups
    sisters: Sisters
    resolutions: tuple[tuple[int, int, int], ...]  # (width, height, pictures), the most common first
    width_px: tuple[float, ...]
    height_px: tuple[float, ...]
    file_bytes: tuple[float, ...]
    near_duplicates: tuple[NearPair, ...]
    refused: tuple[Refusal, ...]
    unreadable: tuple[Refusal, ...]
    notes: tuple[Refusal, ...]
    split: SplitFacts | None

    def to_json(self) -> Metadata:
        """What `data report --json` prints."""
        return asdict(self) | {"quantiles": list(QUANTILES)}


def look(
    labelled: LabelledSet,
    *,
    sample: int | None = None,
    seed: int = 0,
    workers: int = 4,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[Opened], list[Refusal]]:
    """Open the pictures, or a sample of so many, and measure each; those that cannot be read come as refusals."""
    if (sample is not None and sample < 1) or not 1 <= workers <= 256:
        raise BadSettings(f"want a sample of at least 1 and workers from 1 to 256, got {sample} and {workers}")
    pictures: Sequence[LabelledPicture] = labelled.pictures
    if sample is not None and sample < len(pictures):
        chosen = random.Random(seed).sample(range(len(pictures)), sample)  # noqa: S311, not for secrets
        pictures = [pictures[place] for place in sorted(chosen)]
    opened: list[Opened] = []
    refused: list[Refusal] = []
    with ThreadPoolExecutor(workers, "binsight-report") as pool:
        for done, one in enumerate(_in_slices(pool, labelled, pictures), start=1):
            if isinstance(one, Opened):
                opened.append(one)
            else:
                refused.append(one)
            progress(done, len(pictures))
    return opened, refused


def report(
    labelled: LabelledSet,
    opened: Sequence[Opened],
    unreadable: Iterable[Refusal] = (),
    *,
    split: Split | None = None,
    near_bits: int = NEAR_BITS,
) -> DataReport:
    """The report of a set whose pictures were opened by `look`. Raises BadSource for a split of another set."""
    if not 0 <= near_bits <= BITS // 4:
        raise BadSettings(f"want near_bits from 0 to {BITS // 4}, got {near_bits}")
    pictures = labelled.pictures
    resolutions = Counter((one.width_px, one.height_px) for one in opened)
    pairs = near_duplicates(opened, near_bits)
    group_sizes = Counter(product_groups(pictures)).values()
    return DataReport(
        source=labelled.root,
        kind=labelled.kind,
        pictures=len(pictures),
        opened=len(opened),
        counts=counts_of(one.count for one in pictures),
        labels=labels_of(one.label for one in pictures),
        products=_products(pictures),
        groups=Groups(len(group_sizes), max(group_sizes), _sorted(Counter(group_sizes))),
        sisters=_sisters(pictures),
        resolutions=tuple((wide, high, n) for (wide, high), n in resolutions.most_common(10)),
        width_px=_quantiles(one.width_px for one in opened),
        height_px=_quantiles(one.height_px for one in opened),
        file_bytes=_quantiles(one.file_bytes for one in opened),
        near_duplicates=pairs,
        refused=labelled.refused,
        unreadable=tuple(unreadable),
        notes=labelled.notes,
        split=_split_facts(split, labelled, pairs) if split is not None else None,
    )


def near_duplicates(opened: Sequence[Opened], near_bits: int) -> tuple[NearPair, ...]:
    """Pairs of pictures that look alike, the most alike first."""
    sisters = sister_shots(one.picture for one in opened)
    pairs = []
    for i, j, bits in near_pairs([one.hash for one in opened], most_bits=near_bits):
        a, b = opened[i], opened[j]
        is_other = a.picture.count != b.picture.count or a.picture.label != b.picture.label
        are_sisters = b.picture.uri in sisters.get(a.picture.uri, ())
        pairs.append(NearPair(a.picture.uri, b.picture.uri, bits, a.sha256 == b.sha256, are_sisters, not bits and is_other))
    return tuple(sorted(pairs, key=lambda pair: (not pair.is_same_file, pair.bits)))


def counts_of(counts: Iterable[int | None]) -> dict[int, int]:
    """Pictures by count, in order; those of unknown count are left out."""
    return _sorted(Counter(count for count in counts if count is not None))


def labels_of(labels: Iterable[str | None]) -> dict[str, int]:
    """Pictures by class, in order of name."""
    found = Counter(label for label in labels if label is not None)
    return {label: found[label] for label in sorted(found)}


def _in_slices(
    pool: ThreadPoolExecutor, labelled: LabelledSet, pictures: Sequence[LabelledPicture]
) -> Iterator[Opened | Refusal]:
    try:
        for start in range(0, len(pictures), _AT_ONCE):
            yield from pool.map(lambda one: _open(labelled, one), pictures[start : start + _AT_ONCE])
    finally:
        pool.shutdown(cancel_futures=True)


def _open(labelled: LabelledSet, picture: LabelledPicture) -> Opened | Refusal:
    try:
        data = labelled.read(picture.uri)
        decoded = decode(data, at_least=(64, 64))
    except BadImage as error:
        return Refusal(picture.uri, str(error))
    digest = hashlib.sha256(data).digest()
    return Opened(picture, decoded.width, decoded.height, len(data), digest, perceptual_hash(decoded))


def _products(pictures: Sequence[LabelledPicture]) -> Products | None:
    shown = Counter(product for picture in pictures for product in picture.products)
    if not shown:
        return None
    without = sum(not picture.products for picture in pictures)
    most = tuple(sorted(shown.items(), key=lambda pair: (-pair[1], pair[0]))[:10])
    of = _sorted(Counter(shown.values()))
    return Products(len(shown), of.get(1, 0), without, shown.total() / len(pictures), of, most)


def _sisters(pictures: Sequence[LabelledPicture]) -> Sisters:
    found = sister_shots(pictures)
    count = {picture.uri: picture.count for picture in pictures}
    pairs = {(min(uri, other), max(uri, other)) for uri, others in found.items() for other in others}
    apart = Counter(abs(a - b) for a, b in ((count[x], count[y]) for x, y in pairs) if a is not None and b is not None)
    return Sisters(len(pairs), len(found), apart[0], apart[1])


def _split_facts(split: Split, labelled: LabelledSet, pairs: Iterable[NearPair]) -> SplitFacts:
    trains = {row.path: row.split == TRAIN for row in split.rows}
    sides = [{trains[uri] for uri in (pair.a, pair.b) if uri in trains} for pair in pairs]
    rows = {name: split.of(name) for name in split.sizes}
    return SplitFacts(
        split.by,
        split.sizes,
        {name: counts_of(row.count for row in some) for name, some in rows.items()},
        {name: labels_of(row.label for row in some) for name, some in rows.items()},
        len(crossing_groups(split.rows)),
        sum(len(side) == 2 for side in sides),
        leak(split, labelled),
    )


def _quantiles(values: Iterable[int]) -> tuple[float, ...]:
    held = np.array(list(values), np.float64)
    return tuple(float(one) for one in np.percentile(held, QUANTILES)) if held.size else ()


def _sorted(counter: Counter[int]) -> dict[int, int]:
    return dict(sorted(counter.items()))
