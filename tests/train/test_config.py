"""Settings of a run: checked once, and named as the command line names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from binsight.errors import BadSettings
from binsight.train.config import TrainConfig

NEEDED = {"data": "pictures", "split": "split.csv", "out": Path("models/mine")}


def test_the_run_lies_beside_the_model() -> None:
    assert TrainConfig.checked(NEEDED).run_dir == Path("models/mine.run")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("batch_size", 1, "--batch-size: Input should be greater than or equal to 2, got 1"),
        ("dropout", 1.0, "--dropout: Input should be less than 1, got 1.0"),
        ("max_count", 100, "--max-count: Input should be less than or equal to 99, got 100"),
        ("lr", 0.0, "--lr: Input should be greater than 0, got 0.0"),
        ("count_head", "poisson", "--count-head: Input should be 'softmax', 'corn' or 'none', got 'poisson'"),
        ("epochs", 1.5, "--epochs: Input should be a valid integer"),
        ("speed", 1, "--speed: Extra inputs are not permitted, got 1"),
    ],
)
def test_a_value_out_of_range_is_named_as_an_option(name: str, value: object, said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        TrainConfig.checked({**NEEDED, name: value})
    assert said in str(caught.value)


@pytest.mark.parametrize("mode", ["stages:0", "stages:", "backbones", "stages:-1", "none\n"])
def test_only_known_freeze_modes_pass(mode: str) -> None:
    with pytest.raises(BadSettings, match="--freeze"):
        TrainConfig.checked({**NEEDED, "freeze": mode})


def test_its_json_makes_the_same_record_again() -> None:
    config = TrainConfig.checked({**NEEDED, "freeze": "stages:2", "lr": 0.01})
    assert TrainConfig.checked(config.to_json()) == config
