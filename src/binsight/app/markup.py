"""Sentences and tables as HTML. Whatever comes from a store or a visitor is escaped: it is text, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def said(text: str) -> str:
    """A sentence that screen readers read out when it changes.

    >>> said("1 < 2")
    '<p class="said" role="status">1 &lt; 2</p>'
    """
    return f'<p class="said" role="status">{escape(text)}</p>' if text else ""


def failed(text: str) -> str:
    """A sentence about what went wrong; screen readers read it at once."""
    return f'<p class="said failed" role="alert">{escape(text)}</p>'


def verdict(text: str, *, is_good: bool) -> str:
    """A sentence that says whether books and photo agree."""
    return f'<p class="said {"good" if is_good else "bad"}" role="status">{escape(text)}</p>'


def fields(rows: Sequence[tuple[str, str]], title: str) -> str:
    """A record: one row a field."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="record"><caption>{escape(title)}</caption>{body}</table>' if rows else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> str:
    """A table with a heading for each column; wide ones scroll by themselves."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    whole = f'<table class="rows"><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">{whole}</div>' if rows else ""
