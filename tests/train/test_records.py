"""What records say beside the count: as targets, as a loss, and in a run that forgets them at its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from binsight.data.labelled import LabelledPicture
from binsight.errors import BadSettings
from binsight.train.records import RecordTargets, record_targets
from binsight.train.run import train
from tests.model_folders import make_model_folder
from tests.train.drawn import counted, settings

PICTURES = [
    LabelledPicture("0", 0, None),
    LabelledPicture("1", 1, None, ("B1",), numbers=(("volume", 1.0), ("weight", 2.0)), words=("bag", "red")),
    LabelledPicture("2", 9, None, ("B1", "B2"), numbers=(("volume", math.e**2),), words=("bag",)),
    LabelledPicture("3", 2, None, numbers=(("volume", 5.0), ("weight", 7.0)), words=("blue", "rare")),
]


def targets(train: list[int]) -> RecordTargets:
    found = record_targets(PICTURES, np.array(train))
    assert found is not None
    return found


def test_targets_have_the_scale_and_the_words_of_what_is_learnt_from() -> None:
    """Of rows 0 to 2 only one has a weight, so there is nothing to tell apart; "blue" is in none of them, "red" in one."""
    found = targets([0, 1, 2])
    assert found.products.tolist() == [0, 1, 2, -1]
    assert found.words.tolist() == [[0], [1], [1], [0]]
    assert found.numbers.shape == (4, 1)
    np.testing.assert_allclose(found.numbers[:, 0], [np.nan, -1, 1, math.log(5) - 1], atol=2e-3)
    assert found.width == 7 + 1 + 1


def test_a_right_answer_loses_nothing_and_what_is_not_known_counts_for_nothing() -> None:
    found = targets([0, 1, 2])
    right = torch.zeros(2, found.width)
    right[0, 1] = right[1, 2] = 50  # one product, two products
    right[:, 7] = torch.from_numpy(found.numbers[1:3, 0])
    right[:, 8] = 50  # "bag"
    assert float(found.loss(right, torch.tensor([1, 2]))) == pytest.approx(0, abs=1e-6)
    swapped = right.flip(0)
    assert float(found.loss(swapped, torch.tensor([1, 2]))) > 10
    said = torch.randn(1, found.width, requires_grad=True)
    found.loss(said, torch.tensor([3])).backward()  # type: ignore[no-untyped-call]  # products not known, numbers are
    assert said.grad is not None
    assert torch.count_nonzero(said.grad[0, :7]) == 0
    assert torch.count_nonzero(said.grad[0, 7:]) == 2


def test_of_pictures_that_nothing_is_recorded_of_there_is_nothing_to_learn() -> None:
    assert record_targets([LabelledPicture(str(one), one + 1, None) for one in range(4)], np.arange(3)) is None


@pytest.mark.parametrize("others", [{}, {"freeze": "stages:2", "views": 1}, {"freeze": "backbone", "embedding": 0}])
def test_a_run_learns_them_along_and_its_model_has_heads_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any]
) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    source = counted(tmp_path / "counts") | {"backbone": f"local-dir:{make_model_folder(tmp_path / 'start', size=32)}"}
    weights = []
    for name, weight in (("plain", 0.0), ("along", 0.5)):
        choices = {"pretrained": True, "epochs": 1, "records_weight": weight, "embedding_weight": 0, **others}
        train(settings(source, tmp_path / name, **choices))
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    backbone = [name for name in weights[0] if name.startswith("backbone.")]
    differs = [name for name in backbone if not torch.equal(weights[0][name], weights[1][name])]
    assert bool(differs) == (others.get("freeze") != "backbone")


def test_it_is_refused_where_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    source = counted(tmp_path / "counts")
    manifest = Path(source["data"])
    manifest.write_text("\n".join(line.rpartition(",")[0] for line in manifest.read_text().splitlines()) + "\n")
    with pytest.raises(BadSettings, match="--records-weight"):
        train(settings(source, tmp_path / "m", records_weight=0.5, embedding_weight=0))
