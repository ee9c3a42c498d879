"""Sentences and tables as HTML. Whatever comes from a store or a visitor is escaped: it is text, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def said(text: str) -> str:
    """A sentence.

    >>> said("1 < 2")
    '<p class="said">1 &lt; 2</p>'
    """
    return f'<p class="said">{escape(text)}</p>' if text else ""


def failed(text: str) -> str:
    """A sentence about what went wrong; screen readers read it at once."""
    return f'<p class="said failed" role="alert">{escape(text)}</p>'


def verdict(text: str, *, is_good: bool) -> str:
    """A sentence that says whether books and photo agree."""
    return f'<p class="said {"good" if is_good else "bad"}">{escape(text)}</p>'


def fields(rows: Sequence[tuple[str, str]], title: str) -> str:
    """A record: one row a field."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="record"><caption>{escape(title)}</caption>{body}</table>' if rows else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> str:
    """A table with a heading for each column; wide ones scroll by themselves, beneath their title."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    whole = f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    wide = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">{whole}</div>'
    return f'<p class="title">{escape(title)}</p>{wide}' if rows else ""


def bars(shares: Sequence[tuple[str, float]], title: str, *, marked: int | None, mark: str) -> str:
    """Shares of a whole as a table with a bar in each row: the same for eyes and for screen readers. marked: a row set apart.

    >>> bars([("0", 0.25)], "Counts", marked=0, mark="in the books")[-100:]
    'w">in the books: 0</th><td><div><span style="width:25.0%"></span>25%</div></td></tr></tbody></table>'
    """
    rows = "".join(
        f'<tr class="marked"><th scope="row">{escape(mark)}: {escape(name)}</th>{_bar(share)}</tr>'
        if place == marked
        else f'<tr><th scope="row">{escape(name)}</th>{_bar(share)}</tr>'
        for place, (name, share) in enumerate(shares)
    )
    return f'<table class="bars"><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>'


def _bar(share: float) -> str:
    return f'<td><div><span style="width:{100 * share:.1f}%"></span>{share:.0%}</div></td>'
