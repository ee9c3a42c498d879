"""What a model's card says of its making can be done again."""

from __future__ import annotations

import inspect

from binsight.cli.train import train
from binsight.train.card import command
from binsight.train.config import TrainConfig


def test_a_command_names_what_is_not_as_by_default_and_no_place_of_this_machine() -> None:
    config = TrainConfig.checked({
        "data": "my bins", "split": "s.csv", "out": "/home/a/m", "pretrained": False, "stride": 16, "lr": 0.01,
        "batch_size": 64, "compile": True, "licence_file": "/home/a/LICENSE",
    })  # fmt: skip
    assert command(config) == (
        "binsight train --data 'my bins' --split s.csv --out m --no-pretrained --stride 16 --lr 0.01 --compile"
    )


def test_every_setting_is_an_option_of_the_command_and_has_its_default() -> None:
    options = inspect.signature(train).parameters.values()
    theirs = {one.name.removesuffix("_"): one.default for one in options if one.default is not inspect.Parameter.empty}
    settings = {name: field.default for name, field in TrainConfig.model_fields.items() if not field.is_required()}
    assert {name: theirs.get(name, "no option") for name in settings} == settings
