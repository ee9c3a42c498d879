"""Batches for training: which pictures a step sees, on one device or shared out over many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, final

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from binsight.errors import BadSettings
from binsight.train.losses import Relation
from binsight.train.records import RecordTargets

Batch: TypeAlias = dict[str, Tensor]  # "input" as in Examples.inputs; "count" (n,), "label" (n,), "row" (n,)
UNKNOWN = -1  # a picture without a count or without a class


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Pictures with what is to be learnt of them.

    inputs: uint8 (n, h, w, 3) pixels, float32 (n, views, dim) features of a frozen backbone, or float16 (n, views, channels,
    h', w') maps of its frozen stages; the first view is the picture as it is. counts: (n,) true counts;
    labels: (n,) classes; both −1 where not known. relation: which are positives of each other. names: for messages.
    records: what else is to be learnt of them.
    """

    inputs: NDArray[Any]
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]
    relation: Relation
    names: tuple[str, ...]
    train: NDArray[np.int64]  # rows
    val: NDArray[np.int64]
    records: RecordTargets | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Examples:
        """Itself, as nothing in it changes: averaging weights copies all that a module holds."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same file of pixels, instead of being sent them."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        if not isinstance(self.inputs, np.memmap) or self.inputs.filename is None:
            return _examples, (held,)
        return _examples, (held | {"inputs": None}, str(self.inputs.filename), len(self.inputs))


def _examples(held: dict[str, Any], file: str | None = None, rows: int = 0) -> Examples:
    return Examples(**(held if file is None else held | {"inputs": np.load(file, mmap_mode="r", allow_pickle=False)[:rows]}))


@final
class RowsDataset(Dataset[Batch]):
    """Whole batches by their rows."""

    def __init__(self, examples: Examples) -> None:
        self._of = examples

    def __len__(self) -> int:
        return len(self._of.counts)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        at = np.asarray(rows, dtype=np.int64)
        of = self._of
        return {
            "input": torch.from_numpy(np.ascontiguousarray(of.inputs[at])),
            "count": torch.from_numpy(of.counts[at]),
            "label": torch.from_numpy(of.labels[at]),
            "row": torch.from_numpy(at),
        }


@final
class Batches(Sampler[list[int]]):
    """Rows of each training step, the same for every process, of which each takes every world-th.

    Pictures come in a random order; `positives` of them bring one of their positives along. A step is full or not at all.
    The order depends on seed and epoch alone, so that a resumed run sees what an undisturbed one would have seen.
    """

    def __init__(
        self, examples: Examples, *, batch_size: int, positives: float, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world or batch_size // world < 2:
            raise BadSettings(f"want a batch size that gives each of {world} processes the same 2 or more, got {batch_size}")
        if len(examples.train) < batch_size:
            raise BadSettings(f"want at least one batch of {batch_size} training pictures, got {len(examples.train)}")
        self._of, self._size, self._positives, self._seed = examples, batch_size, positives, seed
        self._rank, self._world = rank, world
        self._is_training = np.zeros(len(examples.counts), dtype=bool)
        self._is_training[examples.train] = True
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._of.train) // self._size

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        order = rng.permutation(self._of.train)
        at = 0
        for _ in range(len(self)):
            chosen: list[int] = []
            while len(chosen) < self._size:
                row = int(order[at % len(order)])
                at += 1
                chosen.append(row)
                if len(chosen) < self._size and rng.random() < self._positives:
                    others = self._of.relation.positives_of(row)
                    others = others[self._is_training[others]]
                    if len(others):
                        chosen.append(int(rng.choice(others)))
            yield chosen[self._rank :: self._world]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@final
class BinData(lightning.LightningDataModule):
    """Loaders over examples that lie in memory or in a mapped file."""

    def __init__(self, examples: Examples, *, batch_size: int, positives: float, seed: int, workers: int = 0) -> None:
        super().__init__()
        self.examples = examples
        self._options = {"batch_size": batch_size, "positives": positives, "seed": seed}
        self._workers = workers
        self.batches: Batches | None = None

    def check(self, world: int) -> None:
        """Raises BadSettings when so many processes cannot share out a batch, or the pictures do not fill one."""
        Batches(self.examples, world=world, **self._options)  # type: ignore[arg-type]  # one dict of both types
        if len(self.examples.val) < world:
            raise BadSettings(f"want a validation picture for each of {world} processes, got {len(self.examples.val)}")

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, world = self._place()
        self.batches = Batches(self.examples, rank=rank, world=world, **self._options)  # type: ignore[arg-type]  # one dict of both types
        return self._loader(self.batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        rank, world = self._place()
        mine = self.examples.val[rank::world].tolist()
        size = int(self._options["batch_size"])
        return self._loader([mine[at : at + size] for at in range(0, len(mine), size)])

    def _loader(self, batches: Any) -> DataLoader[Batch]:  # a batch sampler: anything that gives lists of rows
        pin = torch.cuda.is_available()
        return DataLoader(
            RowsDataset(self.examples),
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            persistent_workers=False,
            pin_memory=pin,
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def _as_it_is(batch: Any) -> Any:  # what RowsDataset gives is a batch already
    return batch
