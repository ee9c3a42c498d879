"""The model card that a trained folder carries."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from binsight.checkpoint import Heads, NetworkConfig
from binsight.train.config import TrainConfig


def model_card(config: TrainConfig, base: NetworkConfig, heads: Heads, training: Mapping[str, Any]) -> str:
    """Markdown: what it is, how it was made, what it reaches on validation pictures, what it is not for."""
    figures = training["validation"]
    lines = [
        f"# {config.out.name}",
        "",
        f"A binsight model: `{base.architecture}` on {config.size} × {config.size} px pictures (squashed whole), with "
        f"{_heads(heads)}.",
        "",
        "## Use",
        "```console",
        f"binsight index photos/ --store parts.store --model {config.out.name}",
        *([f"binsight count photo.jpg --model {config.out.name}"] if heads.count else []),
        "```",
        "",
        "## Training",
        f"Data: `{config.data}`, split by {training['split']['by']}: "
        + ", ".join(f"{size} {name}" for name, size in training["split"]["sizes"].items())
        + f". Start: `{config.backbone}`{'' if config.pretrained else ' (random numbers)'}. Seed {config.seed}, "
        f"{training['epochs_run']} epochs, {training['took_s'] / 60:.0f} minutes. "
        "Every setting is in `config.json` under `training`.",
        "",
        "```console",
        command(config),
        "```",
        "",
        "## Figures on its validation pictures",
        "Temperature and intervals were fixed on the same pictures, and nothing else: the last epoch was kept."
        if config.keep_best == "last"
        else "The best epoch was chosen, and temperature and intervals were fixed, on the same pictures: "
        "others do a little worse.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {value:.4g} |" for name, value in figures.items() if isinstance(value, int | float)),
        "",
        "## Limits",
        "It has learnt from the kind of pictures named above, and knows little of others. A count is an estimate: read its "
        "interval. Near counts are confused more often than far ones, and full bins are the hardest.",
        "",
        "## Licence",
        config.licence or "Not stated. What it was trained on may bind it.",
        "",
    ]
    return "\n".join(lines)


def command(config: TrainConfig) -> str:
    """What trains it again: the settings that are not as by default. Places are named, not where they are on this machine."""
    given = config.model_dump(mode="json", exclude_defaults=True, exclude={"licence_file"}) | {"out": config.out.name}
    return shlex.join(["binsight", "train", *(part for name, value in given.items() for part in _option(name, value))])


def _option(name: str, value: Any) -> Iterator[str]:  # a JSON scalar
    option = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{option}" if value else f"--no-{option}"
    else:
        yield from (f"--{option}", str(value))


def _heads(heads: Heads) -> str:
    told = [f"a {heads.embedding}-d embedding" if heads.embedding else "its pooled features as embedding"]
    if heads.count:
        told.append(f"a count head ({heads.count.kind}, 0 … {heads.count.max_count} and more)")
    if heads.classes:
        told.append(f"{len(heads.classes)} classes")
    return ", ".join(told)
