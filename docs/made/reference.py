"""Tables of settings, routes, metrics and errors, from the program's own declarations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from starlette.routing import Route

from binsight import errors
from binsight.api.metrics import Metrics
from binsight.api.routes import routes
from binsight.settings import Settings


def settings_page() -> str:
    """Every environment variable."""
    rows = [
        (f"`BINSIGHT_{name.upper()}`", field.description or "", "" if field.default == "" else f"`{field.default}`")
        for name, field in Settings.model_fields.items()
    ]
    more = [
        ("`BINSIGHT_CACHE`", "where exports of models, decoded pictures and fetched weights lie", "`~/.cache/binsight`"),
        ("`AWS_ENDPOINT_URL`", "another server for `s3://`", ""),
    ]
    introduction = "# Settings\n\nEnvironment variables; a value out of range ends the program with exit code 2.\n\n"
    return introduction + _table(("variable", "meaning", "default"), [*rows, *more]) + "\n"


def http_page() -> str:
    """Every route."""
    rows = [
        (f"`{' '.join(sorted(route.methods or ()))} {re.sub(':path', '', route.path)}`", _first_line(route.endpoint.__doc__))
        for route in routes.routes
        if isinstance(route, Route) and route.include_in_schema
    ]
    return f"""# HTTP API

A running server shows requests and answers of every route at `/docs`, and as OpenAPI at `/openapi.json`. Errors are problem
documents (RFC 9457) whose `type` ends with the name of [an error of the library](errors.md).
[How to run it](../how-to/api.md).

{_table(("route", "what it does"), rows)}
"""


def metrics_table() -> str:
    """Every metric of a server."""
    told = Metrics().text().decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", told, re.MULTILINE))
    rows = [
        (f"`{name}`", kinds[name], words)
        for name, words in re.findall(r"^# HELP (\S+) (.+)$", told, re.MULTILINE)
        if not name.endswith("_created")
    ]
    return _table(("metric", "kind", "meaning"), rows)


def errors_page() -> str:
    """Every error that a caller may catch, in its family."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BinsightError)]
    families = [kind for kind in kinds if errors.BinsightError in kind.__bases__]
    parts = [
        f"## {family.__name__}\n\n{_first_line(family.__doc__)} Exit code {family.exit_code}.\n\n"
        + _table(
            ("error", "meaning"),
            [(f"`{kind.__name__}`", _first_line(kind.__doc__)) for kind in kinds if family in kind.__bases__],
        )
        for family in families
    ]
    introduction = (
        "# Errors\n\nAll are in `binsight.errors` and derive from `BinsightError`. A message says what was wanted, what came, "
        "and the next step.\n\n"
    )
    return introduction + "\n\n".join(parts) + "\n"


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
