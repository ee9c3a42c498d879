"""A `where` for Redis: expressions that together let every item through that the filter does, and few others.

Redis 8 filters a vector set by an expression over each element's attributes, whose rules are not ours: a missing field fails
the whole expression, null differs from everything, "10" > 9 holds, text has no order, and there is no way to say `not`. So
the filter is turned into alternatives without `or` and `not`, each its own query; what Redis cannot say is left out of them;
and the store compares what comes back with the filter itself.
"""

from __future__ import annotations

import json
import re
from itertools import product

from binsight.filters import MAX_WHOLE, RESERVED, And, Compare, Expression, Filter, Has, In, Not, Or, Value
from binsight.records import Metadata

EVERYTHING = ""  # the expression that lets all elements through
_MOST = 8  # alternatives; a filter of more is left to the comparison
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INCLUSIVE = {"<": "<=", ">": ">="}  # numbers beyond 2**53 are doubles there: equal ones may differ here
_LARGEST = 1.7976931348623157e308

Case = tuple[str, ...]  # tests that all hold


def expressions(where: Filter | None) -> tuple[str, ...]:
    """Redis expressions such that an item that passes the filter passes one of them; (EVERYTHING,) where none can be said."""
    if where is None:
        return (EVERYTHING,)
    return tuple(dict.fromkeys(" and ".join(dict.fromkeys(case)) for case in _cases(where.expression)))


def attributes(metadata: Metadata) -> str:
    """What of an item's metadata Redis filters by, as JSON: top-level text, numbers, truth values, and lists of them."""
    kept = {name: _attribute(value) for name, value in metadata.items() if name != RESERVED and _FIELD.fullmatch(name)}
    return json.dumps(
        {name: value for name, value in kept.items() if value is not None}, ensure_ascii=False, separators=(",", ":")
    )


def _attribute(value: object) -> object:
    if isinstance(value, list):
        return [one for one in map(_attribute, value) if one is not None and not isinstance(one, list)]
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, float | int):
        return value if abs(value) < 2**63 else max(-_LARGEST, min(_LARGEST, value)) * 1.0
    return None


def _cases(node: Expression) -> list[Case]:
    """Alternatives that hold wherever the node does; an empty one holds everywhere."""
    if isinstance(node, Or):
        found = [case for term in node.terms for case in _cases(term)]
        return found if len(found) <= _MOST and all(found) else [()]
    if isinstance(node, And):
        both: list[Case] = [()]
        for term in node.terms:
            wider = [a + b for a, b in product(both, _cases(term))]
            both = wider if len(wider) <= _MOST else both
        return both
    if isinstance(node, Not):
        return _cases_not(node.term)
    test = _test(node)
    return [(test,)] if test else [()]


def _cases_not(node: Expression) -> list[Case]:
    """Alternatives that hold wherever the node does not: also on every item without the field, which Redis cannot say."""
    if isinstance(node, Not):
        return _cases(node.term)
    if isinstance(node, Or):
        return _cases(And(tuple(Not(term) for term in node.terms)))
    if isinstance(node, And):
        return _cases(Or(tuple(Not(term) for term in node.terms)))
    return [()]


def _test(node: Compare | In | Has) -> str:
    """One test as Redis says it; empty where it says something else."""
    if isinstance(node, Has):
        literal = _literal(node.value)
        return f"{literal} in .{node.field}" if literal and not isinstance(node.value, bool) else ""
    if isinstance(node, In):
        literals = [_literal(value) for value in node.values]
        is_plain = all(literals) and not any(isinstance(value, bool) for value in node.values)
        return f".{node.field} in [{', '.join(literals)}]" if is_plain else ""
    literal = _literal(node.value)
    if not literal or (isinstance(node.value, str) and node.op not in ("=", "!=")):
        return ""
    if node.op == "!=":
        is_exact = isinstance(node.value, str) or abs(node.value) < MAX_WHOLE
        return f".{node.field} != {literal}" if is_exact else ""
    return f".{node.field} {'==' if node.op == '=' else _INCLUSIVE.get(node.op, node.op)} {literal}"


def _literal(value: Value) -> str:
    """The value as Redis reads it; empty for one that it cannot read."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return f'"{value}"' if value.isprintable() and not {'"', "\\"} & set(value) else ""
    number = repr(value)
    return number if "e-" not in number and "e+" not in number else ""
