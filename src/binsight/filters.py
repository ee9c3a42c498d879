r"""`where`: one small language over an item's metadata, parsed once and compiled by each store to its own.

    label = "ram" and (quantity >= 2 or not tags has "spare")

    filter:  and-chains joined by `or`; `and` binds tighter; `not` binds tightest; parentheses
    test:    FIELD = != < <= > >= VALUE · FIELD in (VALUE, …) · FIELD has VALUE (a list contains it)
    FIELD:   [A-Za-z_][A-Za-z0-9_]*, a key at the top level of the metadata; `_source` is reserved
    VALUE:   "text" or 'text' with JSON's escapes and \' · a JSON number · true · false

Words of the language may be written in any case and may also name fields, since their place tells them apart.
Two-valued: a test on a missing or null field, or between different types (text, number, true or false, list, object), is
false, `!=` too, and its `not` is true. Numbers are compared by value (1 = 1.0), text by code point; true and false have no
order. A whole number in a filter is at most 2**53; one in metadata beyond 64 bits is rounded to a double.
"""

from __future__ import annotations

import json
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, cast, final

from binsight.errors import BadFilter

Value: TypeAlias = str | bool | int | float
Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
Predicate: TypeAlias = Callable[[Any], bool]  # of a metadata object, or of one value in it: any JSON

MAX_CHARS = 16_384  # of the text as given and of its canonical form
MAX_DEPTH = 32  # open parentheses and `not`s at one place; SQLite's parser has room for about 90 symbols
MAX_VALUES = 1_000
MAX_WHOLE = 2**53  # every whole number up to here is a double, so all stores agree on it
MIN_DOUBLE, MAX_DOUBLE = sys.float_info.min, sys.float_info.max
RESERVED = "_source"

EXAMPLE = 'label = "ram" and quantity >= 2'
_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Compare:
    """`field op value`; `op` is = or != when the value is true or false."""

    field: str
    op: Operator
    value: Value


@final
@dataclass(frozen=True, slots=True)
class In:
    """`field in (values)`: equal to any of them; at least one."""

    field: str
    values: tuple[Value, ...]


@final
@dataclass(frozen=True, slots=True)
class Has:
    """`field has value`: the field is a list and one of its elements is equal to the value."""

    field: str
    value: Value


@final
@dataclass(frozen=True, slots=True)
class And:
    """All terms hold; at least two, none of them an And."""

    terms: tuple[Expression, ...]


@final
@dataclass(frozen=True, slots=True)
class Or:
    """Any term holds; at least two, none of them an Or."""

    terms: tuple[Expression, ...]


@final
@dataclass(frozen=True, slots=True)
class Not:
    """The term does not hold."""

    term: Expression


Expression: TypeAlias = Compare | In | Has | And | Or | Not


@final
@dataclass(frozen=True, slots=True)
class Filter:
    """A filter made from its text; equal, and of one hash, when the canonical texts are.

    text: canonical after construction, so it may key a cache. expression: for a store that compiles it to its own language.
    Raises BadFilter, showing the place, when the text is not of the language or over its limits.

    >>> ram = Filter("quantity>=2 AND label in ('ram')")
    >>> ram.text
    'quantity >= 2 and label in ("ram")'
    >>> ram.matches({"label": "ram", "quantity": 3}), ram.matches({"label": "ram"})
    (True, False)
    """

    text: str
    expression: Expression = field(init=False, repr=False, compare=False)
    _predicate: Predicate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expression = _Parser(self.text).whole()
        text = _canonical(expression)
        if len(text) > MAX_CHARS:
            raise BadFilter(f"want at most {MAX_CHARS} characters, got {len(text)} in canonical form; split the filter")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "expression", expression)
        object.__setattr__(self, "_predicate", _predicate(expression))

    def __reduce__(self) -> tuple[type[Filter], tuple[str]]:
        return Filter, (self.text,)  # closures cannot be pickled; the text says all

    @classmethod
    def parse(cls, text: str) -> Filter:
        """The filter that `text` says; the same as `Filter(text)`."""
        return cls(text)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it asks for, each once, in their order."""
        return tuple(dict.fromkeys(_fields(self.expression)))

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether this metadata object passes."""
        return self._predicate(metadata)

    def to_sql(self, column: str) -> tuple[str, list[str | int]]:
        """A parenthesised SQLite expression of value 0 or 1, and its `?` parameters.

        column: trusted SQL that names a TEXT column of `json.dumps(metadata, ensure_ascii=False)`: text is compared in that
        very spelling. Not named as a column of json_each is ("key", "value", "type", …). Needs SQLite 3.38.
        The same answers as `matches`, but for numbers of 16 and more digits: SQLite may read them off by their last digit.
        """
        sql = _sql(self.expression, column)
        return f"({sql.text})", sql.params


def is_field_name(name: str) -> bool:
    """Whether a filter can name a field of this name."""
    return _FIELD.fullmatch(name) is not None


def as_filter(where: Filter | str | None) -> Filter | None:
    """The filter that `where` is or says, or None for none. Raises BadFilter, for another type too."""
    return where if where is None or isinstance(where, Filter) else Filter(where)


# Reading


class _Token(NamedTuple):
    kind: str  # a group of _TOKEN, or "end"
    text: str
    start: int  # in characters of the filter's text

    @property
    def word(self) -> str:
        return self.text.lower() if self.kind == "word" else ""


_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[-+.]?[0-9][0-9A-Za-z_.+-]*)     # too wide, so that 007 and 2kg are shown whole
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<foreign>==|<>|&&|\|\||!(?!=))
      | (?P<sign><=|>=|!=|[=<>(),])
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?(?P<digits>0|[1-9][0-9]*)(?P<rest>(\.[0-9]+)?([eE][-+]?[0-9]+)?)")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_FOREIGN = {"==": "=", "<>": "!=", "&&": "and", "||": "or", "!": "not"}
_ABOUT_VALUES = 'a value is "text" in quotes, a number, true or false'
_ABOUT_FIELDS = "a field is of A-Z a-z 0-9 _ and lies at the top level of the metadata; text needs quotes"
_ABOUT_ESCAPES = r"the escapes are \" \' \\ \/ \b \f \n \r \t and \u with four hex digits"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)  # no escape codes into a terminal


def _bad(text: str, at: int, problem: str, advice: str = "") -> BadFilter:
    begin = max(0, at - 40)
    place = f"  {_printable(text[begin : at + 40])}\n  {' ' * (at - begin)}^"
    example = f"{advice}; for example: {EXAMPLE}" if advice else f"for example: {EXAMPLE}"
    return BadFilter(f"{problem}, at character {at + 1} of the filter:\n{place}\n{example}")


def _tokens(text: str) -> list[_Token]:
    if not isinstance(text, str):
        raise BadFilter(f"want a filter as text, got {type(text).__name__}; for example: {EXAMPLE}")
    if len(text) > MAX_CHARS:
        raise BadFilter(f"want a filter of at most {MAX_CHARS} characters, got {len(text)}; split it into several queries")
    if not text.strip():
        raise BadFilter(f"want a filter, got an empty text; leave it out to take every item, or write for example: {EXAMPLE}")
    tokens = []
    for found in _TOKEN.finditer(text):
        token = _Token(str(found.lastgroup), found[0], found.start())
        if token.text in ('"', "'"):
            raise _bad(text, token.start, f"want a closing {token.text}, got none", _ABOUT_ESCAPES)
        if token.kind == "other":
            raise _bad(text, token.start, f"want a field, a value or an operator, got {token.text!r}", _ABOUT_FIELDS)
        if token.kind == "foreign":
            raise _bad(text, token.start, f"want `{_FOREIGN[token.text]}`, got `{token.text}`")
        if token.kind != "space":
            tokens.append(token)
    return [*tokens, _Token("end", "", len(text))]


class _Parser:
    """Recursive descent; `depth` counts the open parentheses and `not`s."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0
        self.values = 0

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def next(self) -> _Token:
        self.at += 1
        return self.tokens[min(self.at, len(self.tokens)) - 1]

    def wrong(self, token: _Token, wanted: str, advice: str = "") -> BadFilter:
        came = "the end" if token.kind == "end" else f"`{_printable(token.text[:40])}`"
        return _bad(self.text, token.start, f"want {wanted}, got {came}", advice)

    def whole(self) -> Expression:
        expression = self.any_of(0)
        if self.peek().kind != "end":
            raise self.wrong(self.peek(), "`and`, `or` or the end")
        return expression

    def any_of(self, depth: int) -> Expression:
        return self.chain(Or, "or", self.all_of, depth)

    def all_of(self, depth: int) -> Expression:
        return self.chain(And, "and", self.one, depth)

    def chain(self, kind: type[And | Or], word: str, part: Callable[[int], Expression], depth: int) -> Expression:
        terms = list[Expression]()
        while not terms or self.peek().word == word:
            if terms:
                self.next()
            term = part(depth)
            terms.extend(term.terms if isinstance(term, kind) else (term,))
        return kind(tuple(terms)) if len(terms) > 1 else terms[0]

    def one(self, depth: int) -> Expression:
        token = self.peek()
        if depth > MAX_DEPTH:
            raise self.wrong(token, f"at most {MAX_DEPTH} open parentheses and `not`s")
        if token.text == "(":
            self.next()
            inner = self.any_of(depth + 1)
            if self.next().text != ")":
                raise self.wrong(self.tokens[self.at - 1], f"`and`, `or` or `)` for the `(` at character {token.start + 1}")
            return inner
        if token.word == "not" and not self.names_field():
            self.next()
            return Not(self.one(depth + 1))
        return self.test()

    def names_field(self) -> bool:
        """Whether the word here, `not`, is a field: then an operator follows, and what that operator needs."""
        after, value = self.peek(1), self.peek(2)
        is_value = value.kind in ("string", "number") or value.word in ("true", "false")
        return after.text in _HOLDS or (after.word == "in" and value.text == "(") or (after.word == "has" and is_value)

    def test(self) -> Expression:
        name, sign = self.next(), self.peek()
        if name.kind != "word":
            raise self.wrong(name, "a field, `not` or `(`", "a test begins with a field")
        if name.text == RESERVED:
            raise self.wrong(name, "another field", f"`{RESERVED}` is reserved and cannot be filtered on")
        self.next()
        if sign.text in _HOLDS:
            came, value = self.peek(), self.value()
            if isinstance(value, bool) and sign.text not in ("=", "!="):
                raise self.wrong(came, f"text or a number after `{sign.text}`", "true and false have no order")
            return Compare(name.text, cast(Operator, sign.text), value)
        if sign.word == "has":
            return Has(name.text, self.value())
        if sign.word == "in":
            return In(name.text, self.values_in_parentheses())
        shown = name.text[:40]
        advice = f"write `not {shown} in (…)`" if sign.word == "not" else "text needs quotes" if sign.kind == "word" else ""
        raise self.wrong(sign, f"= != < <= > >= in or has after `{shown}`", advice)

    def values_in_parentheses(self) -> tuple[Value, ...]:
        if self.peek().text != "(":
            raise self.wrong(self.peek(), "`(` after `in`", 'write `label in ("ram", "cpu")`')
        values = []
        while self.next().text != ")":  # what is passed here is the `(` or a `,`
            values.append(self.value())
            if self.peek().text not in (",", ")"):
                raise self.wrong(self.peek(), "`,` or `)`")
        return tuple(values)

    def value(self) -> Value:
        token = self.next()
        self.values += 1
        if self.values > MAX_VALUES:
            raise self.wrong(token, f"at most {MAX_VALUES} values in a filter")
        if token.kind == "string":
            return _read_text(self.text, token)
        if token.kind == "number":
            return _read_number(self.text, token)
        if token.word in ("true", "false"):
            return token.word == "true"
        if token.word in ("null", "none"):
            raise self.wrong(token, "a value", "there is no null: every test on a missing or null field is false")
        raise self.wrong(token, "a value", f'write "{token.text[:40]}"' if token.kind == "word" else _ABOUT_VALUES)


def _read_number(text: str, token: _Token) -> int | float:
    shown, parts = token.text[:40], _NUMBER.fullmatch(token.text)
    if parts is None:
        raise _bad(text, token.start, f"want a number as in JSON, got `{shown}`", "all else is text and needs quotes")
    number, digits = float(token.text), parts["digits"]
    if not parts["rest"] and (len(digits) > 16 or int(digits) > MAX_WHOLE):
        advice = "longer ones are text, such as serial numbers, or have an exponent, such as 1e20"
        raise _bad(text, token.start, f"want a whole number of at most {MAX_WHOLE}, got `{shown}`", advice)
    is_zero = not re.search("[1-9]", re.split("[eE]", token.text)[0])
    if abs(number) > MAX_DOUBLE or (abs(number) < MIN_DOUBLE and not is_zero):
        raise _bad(text, token.start, f"want 0 or a size between {MIN_DOUBLE:.1e} and {MAX_DOUBLE:.1e}, got `{shown}`")
    return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else number


def _read_text(text: str, token: _Token) -> str:
    def plain(escape: re.Match[str]) -> str:
        if len(escape[1]) == 5:
            return chr(int(escape[1][1:], 16))
        if escape[1] not in _ESCAPES:
            raise _bad(text, token.start + 1 + escape.start(), f"want an escape, got `{_printable(escape[0])}`", _ABOUT_ESCAPES)
        return _ESCAPES[escape[1]]

    units = _ESCAPE.sub(plain, token.text[1:-1])
    try:
        value = units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")  # joins the two halves of \ud83d\ude00
    except UnicodeDecodeError as error:
        raise _bad(text, token.start, "want text of whole characters, got half a surrogate pair") from error
    if "\0" in value:
        raise _bad(text, token.start, r"want text without the character \u0000, got one with it")
    return value


# Writing


def _fields(node: Expression) -> Iterator[str]:
    if isinstance(node, And | Or):
        for term in node.terms:
            yield from _fields(term)
    elif isinstance(node, Not):
        yield from _fields(node.term)
    else:
        yield node.field


def _literal(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _canonical(node: Expression) -> str:
    if isinstance(node, Compare):
        return f"{node.field} {node.op} {_literal(node.value)}"
    if isinstance(node, In):
        return f"{node.field} in ({', '.join(map(_literal, node.values))})"
    if isinstance(node, Has):
        return f"{node.field} has {_literal(node.value)}"
    if isinstance(node, Not):
        return f"not ({_canonical(node.term)})" if isinstance(node.term, And | Or) else f"not {_canonical(node.term)}"
    if isinstance(node, And):
        return " and ".join(f"({_canonical(term)})" if isinstance(term, Or) else _canonical(term) for term in node.terms)
    return " or ".join(map(_canonical, node.terms))


# To Python


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    try:
        return float(value)  # as SQLite reads a whole number beyond 64 bits
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _comparison(op: Operator, wanted: Value) -> Predicate:
    holds = _HOLDS[op]
    if isinstance(wanted, bool):
        return lambda value: isinstance(value, bool) and holds(value, wanted)
    if isinstance(wanted, str):
        return lambda value: isinstance(value, str) and holds(value, wanted)
    return lambda value: (number := _number(value)) is not None and holds(number, wanted)


def _membership(values: Sequence[Value]) -> Predicate:
    texts = frozenset(v for v in values if isinstance(v, str))
    flags = frozenset(v for v in values if isinstance(v, bool))
    numbers = frozenset(v for v in values if not isinstance(v, str | bool))

    def holds(value: Any) -> bool:
        if isinstance(value, str):
            return value in texts
        return value in flags if isinstance(value, bool) else _number(value) in numbers

    return holds


def _predicate(node: Expression) -> Predicate:
    if isinstance(node, And | Or):
        tests, short = tuple(map(_predicate, node.terms)), isinstance(node, Or)

        def chain(metadata: Any) -> bool:
            for test in tests:  # a third the time of any() and all() over a generator
                if test(metadata) is short:
                    return short
            return not short

        return chain
    if isinstance(node, Not):
        inner = _predicate(node.term)
        return lambda metadata: not inner(metadata)
    name = node.field
    if isinstance(node, Has):
        equal = _membership((node.value,))
        return lambda metadata: isinstance(elements := metadata.get(name), list | tuple) and any(map(equal, elements))
    test = _membership(node.values) if isinstance(node, In) else _comparison(node.op, node.value)
    return lambda metadata: test(metadata.get(name))


# To SQLite. Traps, each met by a test: `->>` gives 1 for true, and JSON text for a list; any text is greater than any number;
# SQLite 3.40 cuts text at \u0000, so text is compared as JSON (`->`), which is faster too; SQLite and Python may round 1e-200
# differently, so SQLite reads both sides; 1,000 chained `or`s are too deep for it, 31 nested `a AND (` overflow its parser.


class _Sql(NamedTuple):
    text: str
    params: list[str | int]
    cost: int = 1  # 0: may tell without reading the JSON; 1: one test; 2: several
    stack: int = 25  # upper bound of the symbols on SQLite's parser stack, which holds about 95


_ROOMY_STACK = 40  # above this, what needs most stack is written first, where it needs least
_CHUNK = 32  # terms in one chain


def _sql(node: Expression, column: str) -> _Sql:
    if isinstance(node, And | Or):
        return _sql_chain([_sql(term, column) for term in node.terms], " AND " if isinstance(node, And) else " OR ")
    if isinstance(node, Not):
        if isinstance(node.term, Not):
            return _sql(node.term.term, column)
        inner = _sql(node.term, column)
        return inner._replace(text=f"{inner.text} IS FALSE")
    path = f"$.{node.field}"
    raw, value, kind = f"({column} -> '{path}')", f"({column} ->> '{path}')", f"json_type({column}, '{path}')"
    if isinstance(node, Compare):
        return _sql_compare(node, column, raw, value, kind)
    if isinstance(node, In):
        return _sql_in(node, raw, value, kind)
    return _sql_has(node, column, path, kind)


def _sql_chain(parts: list[_Sql], word: str) -> _Sql:
    parts = sorted(parts, key=lambda part: -part.stack if part.stack > _ROOMY_STACK else part.cost)
    if len(parts) > _CHUNK:
        return _sql_chain([_sql_chain(parts[i : i + _CHUNK], word) for i in range(0, len(parts), _CHUNK)], word)
    stack = max(part.stack + (3 if i else 1) for i, part in enumerate(parts))  # `(` first, then `… AND (`
    return _Sql(f"({word.join(part.text for part in parts)})", [p for part in parts for p in part.params], 2, stack)


def _sql_number(value: float) -> tuple[str, str | int]:
    return ("?", value) if isinstance(value, int) else ("(? ->> '$')", _literal(value))


def _sql_compare(node: Compare, column: str, raw: str, value: str, kind: str) -> _Sql:
    op, wanted = node.op, node.value
    if isinstance(wanted, bool):
        return _Sql(f"({raw} IS ?)", [_literal(wanted is (op == "="))])
    if not isinstance(wanted, str):
        slot, param = _sql_number(wanted)
        return _Sql(f"(({value} {op} {slot} AND {kind} IN ('integer', 'real')) IS TRUE)", [param])
    literal = _literal(wanted)
    if op == "=":
        return _Sql(f"(instr({column}, ?) AND {raw} IS ?)", [literal, literal], cost=0)
    if op == "!=":
        return _Sql(f"(({raw} <> ? AND {kind} = 'text') IS TRUE)", [literal])
    if op in ("<", ">="):
        return _Sql(f"(({value} {op} ? AND {kind} = 'text') IS TRUE)", [wanted])
    up_to = f"({value} < ? OR {raw} = ?)"  # not `<= ?`: what was cut at \u0000 may seem equal, and is greater
    return _Sql(f"({kind} IS 'text' AND {up_to} IS {'TRUE' if op == '<=' else 'FALSE'})", [wanted, literal])


def _sql_in(node: In, raw: str, value: str, kind: str) -> _Sql:
    spelled = [_literal(v) for v in node.values if isinstance(v, str | bool)]
    numbers = [_sql_number(v) for v in node.values if not isinstance(v, str | bool)]
    tests = []
    if spelled:
        tests.append(f"({raw} IN ({', '.join('?' * len(spelled))})) IS TRUE")
    if numbers:
        tests.append(f"({value} IN ({', '.join(slot for slot, _ in numbers)}) AND {kind} IN ('integer', 'real')) IS TRUE")
    return _Sql(f"({' OR '.join(tests)})", [*spelled, *(param for _, param in numbers)])


def _sql_has(node: Has, column: str, path: str, kind: str) -> _Sql:
    wanted, literal = node.value, _literal(node.value)
    elements = f"SELECT 1 FROM json_each({column}, '{path}') AS e WHERE e.type"  # noqa: S608 (a field is A-Z a-z 0-9 _)
    rows = f"CASE {kind} WHEN 'array' THEN EXISTS ({elements}"  # CASE, since AND may look into an object too
    if isinstance(wanted, bool):
        return _Sql(f"({rows} = '{literal}') ELSE 0 END)", [])
    if isinstance(wanted, str):
        same = f"e.value = ? AND {column} -> ('{path}[' || e.key || ']') = ?"  # the second for what was cut at \u0000
        return _Sql(f"(instr({column}, ?) AND {rows} = 'text' AND {same}) ELSE 0 END)", [literal, wanted, literal], cost=0)
    slot, param = _sql_number(wanted)
    return _Sql(f"({rows} IN ('integer', 'real') AND e.value = {slot}) ELSE 0 END)", [param])
