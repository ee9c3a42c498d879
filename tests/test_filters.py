r"""The filter language, through the Python predicate and through SQLite."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binsight import filters
from binsight.errors import BadFilter, WrongUse
from binsight.filters import And, Compare, Filter, Has, In, Not, Or, as_filter


def stored(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))


def by_sqlite(where: Filter, rows: Sequence[dict[str, Any]]) -> list[int]:
    """The SQL's value for each row, as a column and as a WHERE inside a busy query; both must say the same."""
    sql, params = where.to_sql("i.metadata")
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE items (row INTEGER PRIMARY KEY, alive INTEGER NOT NULL, metadata TEXT NOT NULL)")
        db.executemany("INSERT INTO items VALUES (?, 1, ?)", enumerate(map(stored, rows)))
        values = [value for (value,) in db.execute(f"SELECT {sql} FROM items AS i ORDER BY row", params)]
        passed = db.execute(f"SELECT row FROM items AS i WHERE alive = ? AND row >= 0 AND {sql} ORDER BY row", [1, *params])
        assert [row for (row,) in passed] == [row for row, value in enumerate(values) if value]
        opposite = f"SELECT count(*) FROM items AS i WHERE NOT {sql}"
        assert db.execute(opposite, params).fetchone() == (values.count(0),)
    db.close()
    assert all(type(value) is int and value in (0, 1) for value in values)  # never NULL
    return values


RAM = {"label": "ram", "quantity": 3, "price": 1.25, "new": True, "tags": ["spare", 7, False], "note": None, "box": {"w": 1}}

CASES: list[tuple[str, dict[str, Any], bool]] = [
    # text
    ('label = "ram"', RAM, True),
    ("label = 'ram'", RAM, True),
    ('label = "RAM"', RAM, False),
    ('label != "ram"', RAM, False),
    ('label != "cpu"', RAM, True),
    ('label < "ran"', RAM, True),
    ('label < "ram"', RAM, False),
    ('label <= "ram"', RAM, True),
    ('label <= "ra"', RAM, False),
    ('label > "ra"', RAM, True),
    ('label > "ram"', RAM, False),
    ('label >= "ram"', RAM, True),
    ('label >= "rb"', RAM, False),
    ('label = ""', {"label": ""}, True),
    ('label > ""', {"label": ""}, False),
    ('label <= ""', {"label": ""}, True),
    ('label > ""', RAM, True),
    # numbers
    ("quantity = 3", RAM, True),
    ("quantity = 3.0", RAM, True),
    ("quantity = 30e-1", RAM, True),
    ("quantity != 3.0", RAM, False),
    ("quantity != 4", RAM, True),
    ("quantity < 3", RAM, False),
    ("quantity <= 3", RAM, True),
    ("quantity > 2.5", RAM, True),
    ("quantity >= -1", RAM, True),
    ("price = 1.25", RAM, True),
    ("price < 1.2500001", RAM, True),
    ("x = 0", {"x": -0.0}, True),
    ("x = -0.0", {"x": 0}, True),
    ("x < 0", {"x": -0.0}, False),
    ("x < 1e-300", {"x": 5e-324}, True),
    ("x > 0", {"x": 5e-324}, True),
    ("x = 1e-200", {"x": 1e-200}, True),
    ("x = 1.7976931348623157e308", {"x": 1.7976931348623157e308}, True),
    # whole numbers near and beyond 53 and 64 bits
    ("x = 9007199254740992", {"x": 2**53}, True),
    ("x = 9007199254740992", {"x": 2**53 + 1}, False),
    ("x < 9007199254740992", {"x": 2**53 + 1}, False),
    ("x > -9007199254740992", {"x": -(2**53) - 1}, False),
    ("x = 1e18", {"x": 10**18}, True),
    ("x = 1e18", {"x": 10**18 + 1}, False),
    ("x > 1e18", {"x": 10**18 + 1}, True),
    ("x >= 9.3e18", {"x": 2**63 - 1}, False),
    ("x = 9223372036854775808.0", {"x": 2**63 - 1}, False),
    ("x = 9223372036854775808.0", {"x": 2**63}, True),
    ("x = -9223372036854775808.0", {"x": -(2**63)}, True),
    ("x = 1e20", {"x": 10**20}, True),
    ("x in (1, 1e20)", {"x": 10**20}, True),
    ("x > 1e308", {"x": 10**400}, True),
    ("x < -1e308", {"x": -(10**400)}, True),
    # true and false
    ("new = true", RAM, True),
    ("new = false", RAM, False),
    ("new != true", RAM, False),
    ("new != false", RAM, True),
    # a missing or null field, or one of another type, is false under every operator
    *[
        (f"{field} {op} {value}", RAM, False)
        for field, values in {
            "missing": ['"a"', "0", "1", "true"],
            "note": ['"null"', '"a"', "0", "1", "true"],
            "label": ["0", "1", "-1e300", "true"],
            "quantity": ['"3"', '""', '"a"', "true"],
            "new": ['"true"', '""', "0", "1", "-5", "5"],
            "tags": [r'"[\"spare\",7,false]"', '""', "0", "1", "true"],
            "box": [r'"{\"w\":1}"', '""', "0", "1", "true"],
        }.items()
        for value in values
        for op in (["=", "!="] if value == "true" else ["=", "!=", "<", "<=", ">", ">="])
    ],
    ("not note != 1", RAM, True),
    ('not quantity = "3"', RAM, True),
    ("not missing < 5", RAM, True),
    # in
    ('label in ("cpu", "ram")', RAM, True),
    ('label in ("cpu", 3, true)', RAM, False),
    ('quantity in ("cpu", 3, true)', RAM, True),
    ('quantity in ("3", true)', RAM, False),
    ("new in (1, 0, 2.5)", RAM, False),
    ("new in (1, true)", RAM, True),
    ("x in (1, true)", {"x": 1}, True),
    ("x in (true)", {"x": 1}, False),
    ('note in ("null", 0, false)', RAM, False),
    ('tags in ("spare", 7)', RAM, False),
    ("not missing in (1)", RAM, True),
    # has
    ('tags has "spare"', RAM, True),
    ('tags has "spar"', RAM, False),
    ("tags has 7.0", RAM, True),
    ("tags has 0", RAM, False),
    ("tags has false", RAM, True),
    ("tags has true", RAM, False),
    ('tags has "7"', RAM, False),
    ('label has "ram"', RAM, False),
    ("quantity has 3", RAM, False),
    ("box has 1", RAM, False),
    ('x has "y"', {"x": {"a key": "y"}}, False),
    ('x has "y" and x = "y"', {"x": {"a key": "y"}}, False),
    ("note has 1", RAM, False),
    ("missing has 1", RAM, False),
    ("not tags has true", RAM, True),
    ("x has 1", {"x": [[1], {"y": 1}, None]}, False),
    ('x has "[1]"', {"x": [[1]]}, False),
    ("x has 1", {"x": []}, False),
    ("x has 1e20", {"x": [True, 10**20]}, True),
    # escapes and any character
    (r'x = "say \"hi\" \\ \/ it\u0027s"', {"x": 'say "hi" \\ / it\'s'}, True),
    (r"x = 'it\'s \"so\"'", {"x": 'it\'s "so"'}, True),
    (r'x = "a\tb\nc\u0007"', {"x": "a\tb\nc\x07"}, True),
    (r'x = "\u00dc\ud83d\ude00"', {"x": "Ü😀"}, True),
    (r'x has "\"\\\n"', {"x": ['"\\\n']}, True),
    ('x = "%_*?"', {"x": "a"}, False),
    (r'x > "\t"', {"x": "\n"}, True),
    # code points, not UTF-16: U+FF5E sorts before U+1F600
    ('x > "～"', {"x": "😀"}, True),
    ('x < "é"', {"x": "z"}, True),
    # SQLite 3.40 cuts text at the character 0
    ('x = "a"', {"x": "a\0b"}, False),
    ('x != "a"', {"x": "a\0b"}, True),
    ('x < "a"', {"x": "a\0b"}, False),
    ('x <= "a"', {"x": "a\0b"}, False),
    ('x > "a"', {"x": "a\0b"}, True),
    ('x >= "a"', {"x": "a\0b"}, True),
    (r'x < "a\u0001"', {"x": "a\0b"}, True),
    ('x in ("a")', {"x": "a\0b"}, False),
    ('x has "a"', {"x": ["a\0b"]}, False),
    ('x has "a"', {"x": ["a\0b", "a"]}, True),
    # only the top level, and whole names
    ("w = 1", RAM, False),
    ("quant = 3", RAM, False),
    ("Quantity = 3", RAM, False),
    # and, or, not
    ('label = "ram" and quantity >= 2', RAM, True),
    ('label = "ram" and quantity >= 4', RAM, False),
    ("quantity = 3 or missing = 1 and missing = 2", RAM, True),
    ("(quantity = 3 or missing = 1) and missing = 2", RAM, False),
    ("not quantity = 4 and not missing = 1", RAM, True),
    ("not (quantity = 3 or missing = 1)", RAM, False),
    ("not not quantity = 3", RAM, True),
    ("not not not quantity = 3", RAM, False),
    # words of the language name fields too
    ("in = 1 and not = 2 and not has has 3", {"in": 1, "not": 2, "has": []}, True),
    ("not in (1, 2) and NOT has has 3 AND true = TRUE", {"not": 1, "true": True}, True),
    ("and = 1 and or = 2", {"and": 1, "or": 2}, True),
]


@pytest.mark.parametrize(("text", "metadata", "expected"), CASES)
def test_python_and_sqlite_both_give_the_answer_worked_by_hand(text: str, metadata: dict[str, Any], expected: bool) -> None:
    where = Filter(text)
    assert where.matches(metadata) is expected
    assert by_sqlite(where, [metadata]) == [int(expected)]
    assert Filter(where.text).expression == where.expression


TEXTS = st.sampled_from(["", "a", "ab", "b", "1", "true", "null", "[1]", '"', "\\", "a\"b'", "\n", "Ü", "～", "😀"]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4
)
# up to 15 digits, of any size: what SQLite promises to tell apart
NUMBERS: st.SearchStrategy[int | float] = (
    st.sampled_from([-1, 0, 1, 1.0, -0.0, 2, 2.5, 1e20, 2**53, 1e-200])
    | st.integers(-(2**53), 2**53)
    | st.builds(
        lambda digits, power: float(f"{digits}e{power}"), st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-290, 290)
    )
)
VALUES = TEXTS | NUMBERS | st.booleans()
FIELDS = st.sampled_from(["a", "b", "in", "not", "_"])
SPACES = st.sampled_from(["", " ", "\n\t "])


def quoted(value: str | float, quote: str, ascii_only: bool) -> str:
    spelled = json.dumps(value, ensure_ascii=ascii_only)
    if not isinstance(value, str) or quote == '"':
        return spelled
    return "'" + spelled[1:-1].replace("'", r"\'") + "'"


LITERALS = st.builds(quoted, VALUES, st.sampled_from("'\""), st.booleans())
ORDERED = st.builds(quoted, TEXTS | NUMBERS, st.just('"'), st.booleans())
TESTS = (
    st.builds("{0}{3}{1}{3}{2}".format, FIELDS, st.sampled_from(["=", "!="]), LITERALS, SPACES)
    | st.builds("{0}{3}{1}{3}{2}".format, FIELDS, st.sampled_from(["<", "<=", ">", ">="]), ORDERED, SPACES)
    | st.builds("{0} has {1}".format, FIELDS, LITERALS)
    | st.builds(
        lambda name, values, s: f"{name} in{s}({s}{f',{s}'.join(values)})", FIELDS, st.lists(LITERALS, min_size=1), SPACES
    )
)
FILTERS = st.recursive(
    TESTS,
    lambda inner: (
        st.builds("not {0}".format, inner)
        | st.builds("({1}{0}{1})".format, inner, SPACES)
        | st.builds(
            lambda terms, word: f" {word} ".join(terms), st.lists(inner, min_size=2, max_size=4), st.sampled_from(["and", "OR"])
        )
    ),
    max_leaves=8,
)
SCALARS = VALUES | st.sampled_from([None, "a\0", "\0", 2**63, -(2**63), 2**64, 10**400]) | st.integers(-(2**53), 2**53)
METADATA = st.dictionaries(
    FIELDS, SCALARS | st.lists(SCALARS | st.just([1]), max_size=4) | st.dictionaries(FIELDS, SCALARS, max_size=1), max_size=5
)


@settings(max_examples=300, deadline=None)
@given(FILTERS, st.lists(METADATA, min_size=1, max_size=6))
def test_python_and_sqlite_agree_on_any_filter_and_metadata(text: str, rows: list[dict[str, Any]]) -> None:
    where = Filter(text)
    assert by_sqlite(where, rows) == [int(where.matches(row)) for row in rows]


@settings(max_examples=200, deadline=None)
@given(FILTERS)
def test_the_canonical_text_says_the_same_filter(text: str) -> None:
    where = Filter.parse(text)
    again = Filter.parse(where.text)
    assert (again, hash(again), again.text) == (where, hash(where), where.text)
    assert repr(again.expression) == repr(where.expression)  # by repr, since 1 == True


def test_the_expression_is_open_to_other_compilers() -> None:
    where = Filter("""a = 1.0 or (b in ("x", true) and (tags has 'y' and c<-2.5e1)) or not not d != 'z'""")
    inner = And((In("b", ("x", True)), Has("tags", "y"), Compare("c", "<", -25)))
    assert where.expression == Or((Compare("a", "=", 1), inner, Not(Not(Compare("d", "!=", "z")))))
    assert where.text == 'a = 1 or b in ("x", true) and tags has "y" and c < -25 or not not d != "z"'


def test_filters_that_differ_only_in_spelling_are_one_cache_key() -> None:
    assert len({Filter("a=1 AND(b  in('x',\n2.0))"), Filter('a = 1 and b in ("x", 2)')}) == 1
    assert Filter("a = 1") != Filter("a = true")
    assert Filter("not (a = 1 or b = 2)").text == "not (a = 1 or b = 2)"


def test_a_filter_is_frozen_and_travels_by_pickle() -> None:
    where = Filter("a = 1")
    with pytest.raises(AttributeError):
        where.text = "b = 2"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(where))  # noqa: S301 (our own bytes)
    assert copy == where
    assert copy.matches({"a": 1})


def test_as_filter_takes_a_filter_its_text_or_none() -> None:
    where = Filter("a = 1")
    assert as_filter(where) is where
    assert as_filter(" a=1 ") == where
    assert as_filter(None) is None
    with pytest.raises(BadFilter, match="want a filter as text, got dict; for example: label ="):
        as_filter({"a": 1})  # type: ignore[arg-type]


def test_a_tuple_is_a_list_since_json_stores_it_so() -> None:
    row = {"a": (1, "x")}
    assert by_sqlite(Filter('a has "x"'), [row]) == [1]
    assert Filter('a has "x"').matches(row)


# Wrong filters


def error_of(text: str) -> str:
    with pytest.raises(BadFilter) as caught:
        Filter(text)
    return str(caught.value)


def test_an_error_shows_the_place_what_was_wanted_and_an_example() -> None:
    assert error_of("quantity >= 2 and label = ram") == (
        "want a value, got `ram`, at character 27 of the filter:\n"
        "  quantity >= 2 and label = ram\n"
        "                            ^\n"
        'write "ram"; for example: label = "ram" and quantity >= 2'
    )


def test_an_error_far_into_a_long_filter_shows_only_its_surroundings() -> None:
    lines = error_of("a = 1 and " * 500 + "b = ?").splitlines()
    assert lines[0] == "want a field, a value or an operator, got '?', at character 5005 of the filter:"
    assert lines[1] == "  1 and a = 1 and a = 1 and a = 1 and b = ?"
    assert lines[2].index("^") == lines[1].index("?")


def test_an_error_carries_no_control_characters_to_a_terminal() -> None:
    message = error_of("a = 1\n\x1b[2J \x1b]0;title\x07 = '\x1b'")
    assert message.replace("\n", "").isprintable()


def test_a_bad_filter_is_a_wrong_use() -> None:
    with pytest.raises(WrongUse):
        Filter("")


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("label == 1", 7, "want `=`, got `==`"),
        ("a = 1 && b = 2", 7, "want `and`, got `&&`"),
        ("a <> 1", 3, "want `!=`, got `<>`"),
        ("!(a = 1)", 1, "want `not`, got `!`"),
        ('label = "ram', 9, 'want a closing ", got none'),
        ("label = 'ram\"", 9, "want a closing ', got none"),
        ("box.w = 1", 4, "got '.'"),
        ("größe = 1", 3, "a field is of A-Z a-z 0-9 _ and lies at the top level"),
        ("_source = 1", 1, "want another field, got `_source`"),
        ('a = 1 or _source has "x"', 10, "`_source` is reserved"),
        ('"label" = 1', 1, 'want a field, `not` or `(`, got `"label"`'),
        ("a = 1 and", 10, "want a field, `not` or `(`, got the end"),
        ("label", 6, "want = != < <= > >= in or has after `label`, got the end"),
        ("label not in (1)", 7, "write `not label in (…)`"),
        ("label is 1", 7, "want = != < <= > >= in or has after `label`, got `is`"),
        ("a = null", 5, "every test on a missing or null field is false"),
        ("a = (1)", 5, 'a value is "text" in quotes, a number, true or false'),
        ("a < true", 5, "want text or a number after `<`, got `true`"),
        ("a >= FALSE", 6, "true and false have no order"),
        ("a in 1", 6, "want `(` after `in`, got `1`"),
        ("a in ()", 7, "want a value, got `)`"),
        ("a in (1 2)", 9, "want `,` or `)`, got `2`"),
        ("a in (1,)", 9, "want a value, got `)`"),
        ("a in (1", 8, "want `,` or `)`, got the end"),
        ("(a = 1", 7, "want `and`, `or` or `)` for the `(` at character 1, got the end"),
        ("a = 1)", 6, "want `and`, `or` or the end, got `)`"),
        ("a = 1 b = 2", 7, "want `and`, `or` or the end, got `b`"),
        ("a = 007", 5, "want a number as in JSON, got `007`"),
        ("a = +1", 5, "want a number as in JSON, got `+1`"),
        ("a = .5", 5, "want a number as in JSON, got `.5`"),
        ("a = 2kg", 5, "all else is text and needs quotes"),
        ("a = 9007199254740993", 5, "want a whole number of at most 9007199254740992, got `9007199254740993`"),
        ("a = -9007199254740993", 5, "longer ones are text, such as serial numbers"),
        (f"a = {'9' * 9000}", 5, "want a whole number of at most 9007199254740992"),
        ("a = 1e999", 5, "want 0 or a size between 2.2e-308 and 1.8e+308, got `1e999`"),
        ("a = -1e309", 5, "want 0 or a size between"),
        ("a = 1e-400", 5, "want 0 or a size between"),
        (r"a = 'x\q'", 7, r"want an escape, got `\q`"),
        (r"a = 'x\u12'", 7, "want an escape"),
        (r"a = '\ud800'", 5, "want text of whole characters, got half a surrogate pair"),
        ("a = '\udfff'", 5, "want text of whole characters"),
        (r"a = 'x\u0000'", 5, r"want text without the character \u0000"),
        ("a = '\0'", 5, r"want text without the character \u0000"),
    ],
)
def test_each_mistake_is_named_at_its_place(text: str, at: int, message: str) -> None:
    error = error_of(text)
    assert message in error
    assert f", at character {at} of the filter:\n" in error
    assert error.endswith('for example: label = "ram" and quantity >= 2')


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_filter_says_how_to_have_none(text: str) -> None:
    assert error_of(text).startswith("want a filter, got an empty text; leave it out to take every item")


# Hostile filters


@pytest.mark.parametrize("word", ["and", "or"])
@pytest.mark.parametrize("test", ["a{0} = {0}", "a{0} != 'x'", "not x has {0}", "a{0} <= 'x'"])
def test_nine_hundred_terms_run_in_sqlite(word: str, test: str) -> None:
    where = Filter(f" {word} ".join(test.format(i) for i in range(900)))
    rows: list[dict[str, Any]] = [{}, {"a899": 899}, {f"a{i}": i for i in range(900)}, {"x": [899]}, {"x": list(range(900))}]
    assert by_sqlite(where, rows) == [int(where.matches(row)) for row in rows]


def nested(depth: int, word: str = "and") -> str:
    """Half a chain of `a = 1 and (… or (…))`, true where all fields are as they should be."""
    if depth == 0:
        return 'tags has "deep"'
    return f"a = 1 {word} (b = 2 or c has 3) {word} ({nested(depth - 1, 'or' if word == 'and' else 'and')})"


def bushy(depth: int) -> str:
    """At each level a deep branch beside a deeper one, so that no order of writing makes the SQL flat."""
    word, inside = ("and", "or") if depth % 2 else ("or", "and")
    branch = "a = 1"
    for level in range(depth):
        branch = f"b = 2 {word if level % 2 else inside} ({branch})"
    return 'tags has "deep"' if depth == 0 else f"({branch}) {word} ({bushy(depth - 1)})"


@pytest.mark.parametrize(
    "text",
    [
        nested(filters.MAX_DEPTH),
        bushy(30),
        "not " * filters.MAX_DEPTH + 'tags has "deep"',
        "(" * filters.MAX_DEPTH + 'tags has "deep"' + ")" * filters.MAX_DEPTH,
        "not (a = 1 and not (b = 2 or " * 8 + 'tags has "deep"' + "))" * 8,
    ],
)
def test_the_deepest_filters_run_in_sqlite(text: str) -> None:
    where = Filter(text)
    rows: list[dict[str, Any]] = [
        {},
        {"a": 1},
        {"a": 1, "b": 2},
        {"a": 1, "b": 2, "tags": ["deep"]},
        {"tags": ["deep"]},
        {"b": 2},
    ]
    assert by_sqlite(where, rows) == [int(where.matches(row)) for row in rows]


@pytest.mark.parametrize("opening", ["(", "not ", "not ("])
def test_nesting_beyond_the_limit_is_refused(opening: str) -> None:
    count = filters.MAX_DEPTH // len(opening.split()) + 1
    closing = ")" * count if "(" in opening else ""
    assert "want at most 32 open parentheses and `not`s" in error_of(opening * count + "a = 1" + closing)
    assert "want at most 32 open parentheses and `not`s" in error_of(opening * (filters.MAX_CHARS // len(opening)))


def test_a_thousand_values_are_taken_and_one_more_is_refused() -> None:
    where = Filter(f"a in ({','.join(map(str, range(1000)))})")
    assert by_sqlite(where, [{"a": 999}, {"a": 1000}]) == [1, 0]
    assert "want at most 1000 values in a filter, got `1000`" in error_of(f"a in ({','.join(map(str, range(1001)))})")
    assert "want at most 1000 values in a filter" in error_of(" or ".join(["a=1"] * 1001))


def test_a_filter_of_sixteen_kilobytes_is_taken_and_a_longer_one_is_refused() -> None:
    text = "x" * (filters.MAX_CHARS - len("a = ''"))
    assert Filter(f"a = '{text}'").matches({"a": text})
    assert error_of(f"a = '{text}x'").startswith("want a filter of at most 16384 characters, got 16385; split it")


def test_a_canonical_text_over_the_limit_is_refused_too() -> None:
    text = '"' * 10_000
    assert error_of(f"a = '{text}'") == "want at most 16384 characters, got 20006 in canonical form; split the filter"


@pytest.mark.parametrize(
    "text", ["'" + "\\'" * 8000, '"' * 16001, " " * 16000 + "?", "a" * 16000, "-" * 16000, "a in (" * 2700]
)
def test_long_nonsense_is_refused(text: str) -> None:
    assert "of the filter:" in error_of(text)
