"""A page of pictures that a model got wrong, each with what was answered: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from binsight.sheet import RIGHT, WRONG, Facts, thumbnail

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = f"""
:root {{ color-scheme: light dark; --paper: #eef0f3; --card: #fff; --ink: #1b1f26; --soft: #5f6873; --line: #d5dae1; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #14181e; --card: #1f252e; --ink: #e8ebef; --soft: #9aa5b3;
  --line: #38414d; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }}
header {{ background: #1d2430; color: #fff; border-bottom: 3px solid #e2b93b; padding: 1rem clamp(1rem, 3vw, 2.5rem); }}
h1 {{ font-size: 1.4rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
dl {{ display: flex; flex-wrap: wrap; gap: .3rem 1.8rem; margin: 0; }} dl div {{ display: flex; gap: .5rem; }}
dt {{ color: #aeb8c6; }} dd {{ margin: 0; font-weight: 600; overflow-wrap: anywhere; }}
main {{ display: grid; gap: .9rem; padding: 1.2rem clamp(1rem, 3vw, 2.5rem); max-width: 1500px; margin: auto;
  grid-template-columns: repeat(auto-fill, minmax(min(190px, 45%), 1fr)); }}
figure {{ margin: 0; background: var(--card); border: 2px solid var(--line); border-radius: 10px; padding: .5rem; }}
img, .gone {{ display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px; background: #8883; }}
.gone {{ display: grid; place-items: center; color: var(--soft); }}
figcaption b {{ display: block; margin-top: .3rem; }} .truth {{ color: {RIGHT}; }} .answer {{ color: {WRONG}; }}
small {{ display: block; color: var(--soft); overflow-wrap: anywhere; }}
"""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One picture, what is true of it, what was answered, and further lines."""

    path: Path | None
    truth: str
    answer: str
    notes: tuple[str, ...] = ()


def mistakes_page(mistakes: Sequence[Mistake], path: Path, *, title: str, facts: Facts = (), thumb_px: int = 224) -> Path:
    """Write the page. Texts are escaped, nothing is loaded from elsewhere, and there is no script."""
    shown = "".join(f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>" for name, value in facts)
    cards = "".join(_card(one, thumb_px) for one in mistakes) or "<p>No mistakes.</p>"
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<title>{_safe(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<header><h1>{_safe(title)}</h1><dl>{shown}</dl></header>\n"
        f"<main>\n{cards}</main>\n</body>\n</html>\n"
    )
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _card(one: Mistake, thumb_px: int) -> str:
    small = thumbnail(one.path, thumb_px)
    picture = '<div class="gone">no picture</div>'
    if small is not None:
        data = io.BytesIO()
        small.save(data, "JPEG", quality=82)
        encoded = base64.b64encode(data.getvalue()).decode("ascii")
        picture = f'<img alt="{_safe(one.truth)}" src="data:image/jpeg;base64,{encoded}">'
    notes = "".join(f"<small>{_safe(note)}</small>" for note in one.notes)
    return (
        f'<figure>{picture}<figcaption><b class="truth">{_safe(one.truth)}</b>'
        f'<b class="answer">{_safe(one.answer)}</b>{notes}</figcaption></figure>\n'
    )


def _safe(text: object) -> str:
    return html.escape(str(text), quote=True)
