"""From what was chosen on the screen to a filter: each line a field, a test and values; all lines hold together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from binsight.app.survey import Kind, Survey
from binsight.errors import BadFilter
from binsight.filters import Filter

Test: TypeAlias = Literal["is", "is not", "at least", "at most"]
TESTS: tuple[Test, ...] = get_args(Test)
_SIGNS: dict[Test, str] = {"at least": ">=", "at most": "<="}


@dataclass(frozen=True, slots=True)
class Line:
    """One condition; it counts once a field and a value are chosen. Several values: any of them."""

    name: str | None
    test: Test
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """How many items to show, how near at least, and the filter's text."""

    k: int
    min_score: float
    where: str | None


def choices_of(survey: Survey, k: float, min_score: float, typed: str | None, *lines: Any) -> Choices:  # of dropdowns
    """What the widgets say. lines: of each condition its field, its test and its values, one after the other."""
    told = [
        Line(name or None, test if test in TESTS else TESTS[0], tuple(str(value) for value in values or ()))
        for name, test, values in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
    ]
    return Choices(int(k), float(min_score), where_of(told, typed or "", survey))


def where_of(lines: Sequence[Line], typed: str, survey: Survey) -> str | None:
    """The filter's text, None where nothing is chosen. typed: a filter in the language itself, which holds as well.

    Raises BadFilter for a number that is none, or a typed text that is not of the language.

    >>> shelf = Line("shelf", "is", ("A1", "B2"))
    >>> where_of([shelf, Line("quantity", "at least", ("2",))], "", Survey(0, 0))
    'shelf in ("A1", "B2") and quantity >= 2'
    """
    chosen = [_condition(line, _kind(survey, line)) for line in lines if line.name and line.values]
    if typed.strip():
        Filter.parse(typed)  # here, so that the message shows the place in what was typed
        chosen.append(f"({typed.strip()})" if chosen else typed.strip())
    return " and ".join(chosen) or None


def _kind(survey: Survey, line: Line) -> Kind:
    """The field's, as it was surveyed; where it was not, what the values look like."""
    found = survey.field_named(line.name or "")
    if found is not None:
        return found.kind
    return "number" if line.test in _SIGNS or all(_is_number(value) for value in line.values) else "text"


def _condition(line: Line, kind: Kind) -> str:
    literals = [literal for value in line.values for literal in _literals(line, value, kind)]
    if line.test in _SIGNS:
        if len(line.values) > 1:
            raise BadFilter(f"want one value for {line.name} {line.test}, got {len(line.values)}")
        return f"{line.name} {_SIGNS[line.test]} {literals[0]}"
    if kind == "list":
        found = " or ".join(f"{line.name} has {literal}" for literal in literals)
        found = f"({found})" if len(literals) > 1 else found
    elif len(literals) == 1:
        found = f"{line.name} = {literals[0]}"
    else:
        found = f"{line.name} in ({', '.join(literals)})"
    return f"not {found}" if line.test == "is not" else found


def _literals(line: Line, value: str, kind: Kind) -> list[str]:
    text, quoted = value.strip(), json.dumps(value, ensure_ascii=False)
    if kind == "yes or no" and text.lower() in ("yes", "no", "true", "false"):
        return ["true" if text.lower() in ("yes", "true") else "false"]
    if kind == "number":
        if not _is_number(text):
            raise BadFilter(f"want a number for {line.name}, got {text[:60]!r}")
        return [text]
    return [quoted, text] if kind == "list" and _is_number(text) else [quoted]  # a list may hold either


def _is_number(text: str) -> bool:
    try:
        return isinstance(json.loads(text), int | float) and text.strip() not in (
            "true",
            "false",
            "NaN",
            "Infinity",
            "-Infinity",
        )
    except ValueError:
        return False
