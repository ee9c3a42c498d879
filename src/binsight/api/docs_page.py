"""/docs: the OpenAPI document for people, as one page that needs no script and no network.

FastAPI's own page loads its program from another host: it stays blank in a warehouse without internet, and where it does not, a
foreign script runs with the rights of the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; font-size: 1.1rem; } h2 code { background: #eef; padding: .2rem .4rem; }
pre { background: #f6f6f6; padding: .7rem; overflow-x: auto; font-size: .85rem; } table { border-collapse: collapse; }
td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
"""
SECURITY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def page(document: dict[str, Any]) -> str:  # JSON
    """The page of an OpenAPI document; /openapi.json has the whole."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['summary'])}</p>",
        f"<p>{_prose(info['description'])}</p><p>For programs: <a href=openapi.json>openapi.json</a>.</p>",
    ]
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            parts.extend(_operation(method.upper(), path, told, document))
    return "\n".join(parts)


def _operation(method: str, path: str, told: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:  # JSON
    yield f"<h2><code>{method} {escape(path)}</code></h2><p>{_prose(told['description'])}</p>"
    for kind, content in told.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Takes {escape(kind)}:</p>"
        if "properties" in content["schema"]:
            rows = [(name, _words(field)) for name, field in content["schema"]["properties"].items()]
            yield _table(rows)
        for name, example in content.get("examples", {}).items():
            yield _json(example["value"], title=name)
    yield _table([(status, one["description"]) for status, one in told["responses"].items()])
    for example in _answer_examples(told, document):
        yield _json(example, title="answers")


def _answer_examples(told: dict[str, Any], document: dict[str, Any]) -> list[Any]:  # JSON
    schema = told["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    examples: list[Any] = document["components"]["schemas"].get(name, {}).get("examples", [])
    return examples


def _words(field: dict[str, Any]) -> str:  # JSON
    field = field.get("items", field)
    said: str = field.get("description") or field["type"]
    said += f" Example: {field['example']}" if "example" in field else ""
    return said + (f" Default: {field['default']}." if "default" in field else "")


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(name)}</code><td>{_prose(words)}" for name, words in rows)
    return f"<table>{cells}</table>"


def _prose(text: str) -> str:
    """A description, in which only `names` are marked.

    >>> _prose("in `Retry-After`, 1 < 2")
    'in <code>Retry-After</code>, 1 &lt; 2'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _json(value: Any, *, title: str) -> str:  # JSON
    return f"<p>{escape(title)}</p><pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"
