"""From what was chosen on the screen to a filter: each line a field, a test and values; all lines hold together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from binsight.app.survey import Kind, Survey, is_field_name
from binsight.errors import BadFilter, BadSettings
from binsight.filters import Filter

Test: TypeAlias = Literal["is", "is not", "at least", "at most"]
TESTS: tuple[Test, ...] = get_args(Test)
MOST_SHOWN = 48
MOST_CHOSEN = 100  # values of one condition
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


def choices_of(survey: Survey, k: object, min_score: object, typed: object, *lines: Any) -> Choices:  # of dropdowns
    """What the widgets say, which is whatever a browser sent. lines: of each condition its field, its test and its values, one
    after the other. Raises BadSettings, BadFilter."""
    told = [_line(*line) for line in zip(lines[::3], lines[1::3], lines[2::3], strict=True)]
    how_many = round(_number(k, "how many to show", 1, MOST_SHOWN))
    text = typed if isinstance(typed, str) else ""
    return Choices(how_many, _number(min_score, "a score cut-off", -1, 1), where_of(told, text, survey))


def _line(name: object, test: object, values: object) -> Line:
    chosen = tuple(str(value) for value in values) if isinstance(values, list) else ()
    if len(chosen) > MOST_CHOSEN:
        raise BadFilter(f"want at most {MOST_CHOSEN} values for a field, got {len(chosen):,}")
    field = name.strip() if isinstance(name, str) else ""
    return Line(field or None, next((one for one in TESTS if one == test), TESTS[0]), chosen)


def _number(told: object, what: str, least: float, most: float) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float) or not least <= told <= most:
        raise BadSettings(f"want {what} from {least} to {most}, got {'nothing' if told is None else str(told)[:20]}")
    return float(told)


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
    if not is_field_name(line.name or ""):
        raise BadFilter(f"want a field's name of A-Z a-z 0-9 _ that begins with no digit, got {(line.name or '')[:60]!r}")
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
