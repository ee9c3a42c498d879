"""Batches: the same for every process and every repetition, with positives among them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import BadSettings
from binsight.train.datamodule import Batches, BinData, Examples, RowsDataset
from binsight.train.losses import Relation

N = 40


def examples(inputs: np.ndarray | None = None) -> Examples:
    """Forty pictures, four of each key; every fourth is not for training."""
    rows = np.arange(N)
    pixels = np.arange(N, dtype=np.uint8)[:, None, None, None] if inputs is None else inputs
    relation = Relation([[f"key {row // 4}"] for row in rows])
    names = tuple(map(str, rows))
    return Examples(pixels, rows % 5, np.full(N, -1), relation, names, rows[rows % 4 != 3], rows[rows % 4 == 3])


def batches(positives: float = 0.5, seed: int = 0, size: int = 8, rank: int = 0, world: int = 1) -> Batches:
    return Batches(examples(), batch_size=size, positives=positives, seed=seed, rank=rank, world=world)


def test_seed_and_epoch_alone_give_the_order() -> None:
    first, again = batches(), batches()
    assert list(first) == list(again) == list(first)
    assert list(batches(seed=1)) != list(first)
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before
    again.set_epoch(1)
    assert list(first) == list(again)


def test_every_step_is_full() -> None:
    found = list(batches())
    assert [len(step) for step in found] == [8] * (30 // 8)
    assert len(batches()) == len(found)


def test_without_positives_an_epoch_sees_every_picture_at_most_once() -> None:
    rows = [row for step in batches(positives=0.0) for row in step]
    assert len(rows) == len(set(rows)) == 24
    assert all(row % 4 != 3 for row in rows)


def test_positives_follow_their_picture_and_are_training_pictures() -> None:
    for step in batches(positives=1.0):
        pairs = list(zip(step[::2], step[1::2], strict=True))
        assert all(one // 4 == other // 4 and one != other for one, other in pairs)
        assert all(row % 4 != 3 for row in step)


def test_a_picture_without_positives_brings_none() -> None:
    rows = np.arange(8)
    alone = Examples(rows, rows, rows, Relation([[]] * 8), tuple("abcdefgh"), rows, rows)
    (step,) = Batches(alone, batch_size=8, positives=1.0, seed=0)
    assert sorted(step) == rows.tolist()


def test_processes_share_out_each_step_among_them() -> None:
    whole, parts = list(batches()), [list(batches(rank=rank, world=2)) for rank in (0, 1)]
    for step, first, second in zip(whole, *parts, strict=True):
        assert (step[0::2], step[1::2]) == (first, second)


@pytest.mark.parametrize(("size", "world"), [(9, 2), (2, 2), (8, 5)])
def test_a_batch_that_processes_cannot_share_is_refused(size: int, world: int) -> None:
    with pytest.raises(BadSettings, match=f"each of {world} processes the same 2 or more, got {size}"):
        batches(size=size, world=world)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(BadSettings, match="want at least one batch of 32 training pictures, got 30"):
        batches(size=32)


def test_a_batch_holds_its_rows_pixels_and_truths() -> None:
    batch = RowsDataset(examples()).__getitems__([7, 3])
    assert batch["input"].flatten().tolist() == batch["row"].tolist() == [7, 3]
    assert batch["count"].tolist() == [2, 3]
    assert batch["label"].tolist() == [-1, -1]


def test_validation_goes_through_its_rows_once_in_order() -> None:
    data = BinData(examples(), batch_size=4, positives=0.0, seed=0)
    assert [batch["row"].tolist() for batch in data.val_dataloader()] == [[3, 7, 11, 15], [19, 23, 27, 31], [35, 39]]


def test_mapped_pixels_are_neither_copied_nor_sent_to_other_processes(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", np.arange(50 * 4096 * 3, dtype=np.uint8).reshape(50, 64, 64, 3))
    mapped = examples(np.load(tmp_path / "pixels.npy", mmap_mode="r")[:N])
    assert copy.deepcopy(mapped) is mapped
    sent = pickle.dumps(mapped)
    assert len(sent) < 20_000
    there = pickle.loads(sent)  # noqa: S301, what was pickled above
    assert isinstance(there.inputs, np.memmap)
    np.testing.assert_array_equal(there.inputs, mapped.inputs)
    assert there.relation.positives_of(1).tolist() == [0, 2, 3]
