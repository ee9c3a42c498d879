"""Search spaces of hyperparameters: two built in, others from TOML or JSON files; checked before the first trial."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from binsight.errors import BadSettings
from binsight.evaluate_count import UP_TO
from binsight.train.config import TrainConfig

if TYPE_CHECKING:
    import optuna

Value = str | int | float | bool
Kind = Literal["float", "int", "categorical"]

# Of a place, not of a model: they follow the machine that a trial runs on, and never the study.
LOCAL = frozenset(
    {"data", "split", "out", "device", "devices", "nodes", "workers", "threads", "profile", "licence", "licence_file"}
)
_NOT_SEARCHED = LOCAL | {"seed", "coverage", "compile", "patience"}
_MEANING = ("count_weight", "label_weight", "embedding_weight")  # at 0 a head goes, and with it its part of the score
_NUMBER_KEYS, _CHOICE_KEYS = frozenset({"type", "low", "high", "log", "step"}), frozenset({"type", "choices"})

# The ranges of the source projects.
_DEFAULT: dict[str, dict[str, Any]] = {
    "lr": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
    "batch_size": {"type": "categorical", "choices": [16, 32, 64, 128, 256, 512]},
    "epochs": {"type": "int", "low": 10, "high": 20},
}
_WIDE: dict[str, dict[str, Any]] = {
    "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
    "batch_size": {"type": "categorical", "choices": [16, 32, 64, 128, 256, 512]},
    "epochs": {"type": "int", "low": 10, "high": 40},
    "weight_decay": {"type": "float", "low": 1e-4, "high": 0.5, "log": True},
    "layer_decay": {"type": "float", "low": 0.5, "high": 1.0},
    "warmup": {"type": "float", "low": 0.0, "high": 0.3},
    "dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "drop_path": {"type": "float", "low": 0.0, "high": 0.3},
    "mixup": {"type": "float", "low": 0.0, "high": 1.0},
    "augment": {"type": "float", "low": 0.0, "high": 2.0},
    "ema": {"type": "categorical", "choices": [0.0, 0.99, 0.998]},
    "freeze": {"type": "categorical", "choices": ["none", "stages:1", "stages:2", "backbone"]},
    "count_head": {"type": "categorical", "choices": ["softmax", "corn"]},
    "count_spread": {"type": "float", "low": 0.0, "high": 1.5},
    "max_count": {"type": "int", "low": 5, "high": 20},
    "embedding_weight": {"type": "float", "low": 0.05, "high": 2.0, "log": True},
    "embedding_loss": {"type": "categorical", "choices": ["supcon", "multisimilarity"]},
    "positives": {"type": "float", "low": 0.0, "high": 1.0},
}
BUILT_IN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {"default": _DEFAULT, "wide": _WIDE}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one setting may be: numbers from low to high, both included, or one of some choices."""

    kind: Kind
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()

    @property
    def edges(self) -> tuple[Value, ...]:
        """The values of which all others are right when these are."""
        return self.choices if self.kind == "categorical" else (self.low, self.high)

    def suggest(self, name: str, trial: optuna.Trial) -> Value:
        """The trial's value of it."""
        if self.kind == "categorical":
            chosen = trial.suggest_categorical(name, list(self.choices))
            assert chosen is not None  # no choice is
            return chosen
        if self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def to_json(self) -> dict[str, Any]:  # JSON values
        if self.kind == "categorical":
            return {"type": self.kind, "choices": list(self.choices)}
        found: dict[str, Any] = {"type": self.kind, "low": self.low, "high": self.high}
        return found | ({"log": True} if self.log else {}) | ({"step": self.step} if self.step is not None else {})


Space = dict[str, Parameter]


def read_space(text: str) -> Space:
    """A built-in space by its name, or that of a .toml or .json file. Raises BadSettings, with the setting's name."""
    if text in BUILT_IN:
        return _parsed(BUILT_IN[text], f"space {text!r}")
    file = Path(text)
    if not file.is_file():
        raise BadSettings(f"no such search space: {text}; give {', '.join(BUILT_IN)}, or a .toml or .json file")
    try:
        content = file.read_text(encoding="utf-8")
        document = json.loads(content) if file.suffix.lower() == ".json" else tomllib.loads(content)
    except (OSError, ValueError) as error:  # JSON, TOML and UTF-8 errors are ValueErrors
        raise BadSettings(f"{file}: no readable search space: {error}") from error
    return _parsed(document, str(file))


def space_toml(space: Mapping[str, Parameter]) -> str:
    """The space as a TOML file, to be changed and given back."""
    lines: list[str] = []
    for name, parameter in space.items():
        parts = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in parameter.to_json().items())
        lines.append(f"{name} = {{{', '.join(parts)}}}")  # JSON's scalars and lists are TOML's too
    return "\n".join(lines) + "\n"


def without(space: Mapping[str, Parameter], names: Iterable[str]) -> Space:
    """The space less the settings that are given. Raises BadSettings when nothing is left to search."""
    given = set(names)
    left = {name: parameter for name, parameter in space.items() if name not in given}
    if not left:
        raise BadSettings("nothing is left to search: every setting of the space is given by --set")
    return left


def fitted(space: Space, base: TrainConfig, *, pictures: int, may_cut: bool) -> Space:
    """The space cut to what this data and backbone allow (may_cut), or unchanged.

    pictures: training pictures; a batch cannot be larger. Raises BadSettings when it does not fit and may not be cut.
    """
    has_weights = base.pretrained and not base.backbone.startswith("binsight_vit_")
    changed = dict(space)
    batch, freeze = space.get("batch_size"), space.get("freeze")
    if batch is not None and max(_numbers(batch)) > pictures:
        if not may_cut:
            raise BadSettings(
                f"batch_size: at most the {pictures} training pictures fit in a batch, got {max(_numbers(batch)):g}"
            )
        changed["batch_size"] = replace(batch, choices=tuple(one for one in batch.choices if float(one) <= pictures))
        if not changed["batch_size"].choices:
            raise BadSettings(
                f"{pictures} training pictures are too few for a batch of {min(_numbers(batch)):g}; give a --space"
            )
    if freeze is not None and not has_weights:
        if may_cut:
            del changed["freeze"]
        elif any(value != "none" for value in freeze.choices):
            raise BadSettings(f"freeze: {base.backbone} starts from random numbers: there is nothing to keep, take 'none'")
    return changed


def check_space(space: Mapping[str, Parameter], base: TrainConfig) -> None:
    """Raise BadSettings, naming the setting, unless every value in the space can be trained with and scores compare."""
    for name, parameter in space.items():
        if name not in TrainConfig.model_fields:
            raise BadSettings(f"{name}: no setting of that name; `binsight train --help` lists them")
        if name in _NOT_SEARCHED:
            raise BadSettings(f"{name}: not to be searched for: it changes no model, or only its luck; fix it with --set")
        if TrainConfig.model_fields[name].annotation is int and parameter.kind == "float":
            raise BadSettings(f'{name}: wants whole numbers: give type = "int" or "categorical"')
        for value in parameter.edges:
            try:
                TrainConfig.checked({**base.model_dump(), name: value})
            except BadSettings as error:
                raise BadSettings(f"search space: {str(error).removeprefix('--')}") from error
        _check_meaning(name, parameter)


def _check_meaning(name: str, parameter: Parameter) -> None:
    """Trials are compared by their score, so its parts have to be the same in all of them."""
    if len(set(parameter.edges)) == 1:
        return
    if name in _MEANING and 0 in parameter.edges:
        raise BadSettings(f"{name}: 0 leaves a head and its part of the score out: trials would not compare; start above 0")
    if name == "count_head" and "none" in parameter.choices:
        raise BadSettings("count_head: 'none' takes counts out of the score: trials would not compare; leave it out")
    if name == "max_count" and min(_numbers(parameter)) < UP_TO:
        raise BadSettings(f"max_count: the score is of bins with 0 to {UP_TO} items: start at {UP_TO}, or fix it with --set")


def _numbers(parameter: Parameter) -> list[float]:
    return [float(one) for one in parameter.edges]


def _parsed(document: Any, where: str) -> Space:  # what a file holds
    if not isinstance(document, Mapping) or not document:
        raise BadSettings(f'{where}: want settings as name = {{type = "float", low = 0.1, high = 1.0}}, got none')
    return {str(name): _parameter(spec, f"{where}: {name}") for name, spec in document.items()}


def _parameter(spec: Any, where: str) -> Parameter:  # what a file holds
    kind = spec.get("type") if isinstance(spec, Mapping) else None
    if kind not in ("float", "int", "categorical"):
        raise BadSettings(f'{where}: want type = "float", "int" or "categorical", got {json.dumps(kind or spec, default=str)}')
    known = _CHOICE_KEYS if kind == "categorical" else _NUMBER_KEYS
    if unknown := sorted(set(spec) - known):
        raise BadSettings(f"{where}: {unknown[0]!r} is nothing that type {kind!r} has; want {', '.join(sorted(known))}")
    return _choices(spec, where) if kind == "categorical" else _range(kind, spec, where)


def _choices(spec: Mapping[str, Any], where: str) -> Parameter:
    choices = spec.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(one, str | int | float) for one in choices):
        raise BadSettings(f"{where}: want choices = [value, …], got {json.dumps(choices, default=str)}")
    if len({json.dumps(one) for one in choices}) < len(choices):
        raise BadSettings(f"{where}: a choice is named twice in {json.dumps(choices)}")
    return Parameter("categorical", choices=tuple(choices))


def _range(kind: Kind, spec: Mapping[str, Any], where: str) -> Parameter:
    low, high, step, log = (spec.get(name) for name in ("low", "high", "step", "log"))
    for name, value in (("low", low), ("high", high), ("step", step)):
        if name == "step" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
            number = "a whole number" if kind == "int" else "a number"
            raise BadSettings(f"{where}: want {number} as {name}, got {json.dumps(value, default=str)}")
    if not isinstance(log, bool | None):
        raise BadSettings(f"{where}: want log = true or false, got {json.dumps(log, default=str)}")
    assert low is not None
    assert high is not None
    if not -float("inf") < low <= high < float("inf"):
        raise BadSettings(f"{where}: want low ≤ high, got {low} and {high}")
    if log and (low <= 0 or step is not None):
        raise BadSettings(f"{where}: log = true wants a low above 0 and no step, got low {low}, step {step}")
    if step is not None and step <= 0:
        raise BadSettings(f"{where}: want a step above 0, got {step}")
    if kind == "float":
        return Parameter(kind, float(low), float(high), bool(log), None if step is None else float(step))
    return Parameter(kind, low, high, bool(log), step)
