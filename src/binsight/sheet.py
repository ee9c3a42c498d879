"""Search results to look at: a contact sheet (PNG) and a page (HTML), query → matches with scores.

Both take the same rows and never fail for a picture that is missing or cannot be read: a grey box stands for it. All texts,
ids and metadata are treated as hostile: the page escapes them, holds no script and asks browsers to load nothing.
"""

from __future__ import annotations

import base64
import html
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from binsight.errors import BadSettings
from binsight.records import Metadata

Facts: TypeAlias = Sequence[tuple[str, str]]  # what stands in the header: (name, value)
Box: TypeAlias = tuple[float, float, float, float]

RIGHT, WRONG, QUERY = "#17834f", "#c9372c", "#2a4d8f"
_PAPER, _CARD, _INK, _SOFT, _LINE, _GAP_FILL = "#eef0f3", "#ffffff", "#1b1f26", "#5f6873", "#d5dae1", "#c9cdd3"


@dataclass(frozen=True, slots=True)
class SheetMatch:
    """One match as shown. path: its picture, None if there is none. is_right: None where the truth is not known."""

    path: str | Path | None
    id: str
    score: float
    label: str = ""
    is_right: bool | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One query and its matches, nearest first. query_note: a line of your own, for example the count that was seen."""

    query_path: str | Path | None
    query_label: str
    matches: Sequence[SheetMatch]
    took_ms: float | None = None
    query_note: str = ""


def thumbnail(path: str | Path | None, size_px: int) -> Image.Image | None:
    """The picture as RGB, upright, at most size_px on its longer side; None when it is missing or unreadable."""
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size_px, size_px))  # JPEG: decode no larger than needed
            image.load()
            upright = _as_rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # SyntaxError: how Pillow reports a broken PNG
        return None
    return ImageOps.contain(upright, (size_px, size_px), Image.Resampling.LANCZOS)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # wider than 8 bits: stretch what is there to 0 … 255
        values = np.nan_to_num(np.asarray(image, np.float32))
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        over = image.convert("RGBA")
        ground = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(ground, over).convert("RGB")
    return image.convert("RGB")


def contact_sheet(
    rows: Sequence[SheetRow], path: str | Path, *, title: str = "binsight", facts: Facts = (), tile_px: int = 168
) -> Path:
    """Write a PNG: one line a query, its matches beside it, each with score, id, label and a green tick or a red cross.

    tile_px: side of a picture on the sheet; everything else grows with it. Texts outside the built-in font's characters are
    written with their nearest ASCII, else "?". Raises BadSettings when tile_px is outside 48 … 1024 or the sheet too tall.
    """
    if not 48 <= tile_px <= 1024:
        raise BadSettings(f"want tile_px from 48 to 1024, got {tile_px}")
    sheet = _Sheet(tile_px, columns=max([len(row.matches) for row in rows], default=0), rows=len(rows))
    sheet.header(title, facts)
    for index, row in enumerate(rows):
        sheet.row(index, row)
    path = Path(path)
    sheet.image.save(path, "PNG", optimize=True)
    return path


@final
class _Sheet:
    """The sheet while it is drawn; `unit` is a pixel at the reference tile of 160."""

    def __init__(self, tile_px: int, *, columns: int, rows: int) -> None:
        self.tile = tile_px
        self.unit = tile_px / 160
        self.margin, self.gap, self.pad = self._px(26), self._px(12), self._px(8)
        self.card_w, self.card_h = tile_px + 2 * self.pad, tile_px + 2 * self.pad + self._px(66)
        self.arrow_w = self._px(46)
        self.top = self._px(104)
        width = 2 * self.margin + self.card_w + self.arrow_w + columns * (self.card_w + self.gap) - self.gap
        height = self.top + max(rows, 1) * (self.card_h + self.gap) + self.margin - self.gap
        if height > 65_000:
            raise BadSettings(f"a sheet of {rows} queries would be {height} px tall; show fewer or take a smaller tile_px")
        self.image = Image.new("RGB", (max(width, self._px(640)), height), _PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.fonts = {size: ImageFont.load_default(size * self.unit) for size in (11, 12.5, 14, 17, 26)}

    def _px(self, units: float) -> int:
        return round(units * self.unit)

    def header(self, title: str, facts: Facts) -> None:
        self.draw.rectangle((0, 0, self.image.width, self._px(80)), fill="#1d2430")
        self.draw.rectangle((0, self._px(80), self.image.width, self._px(83)), fill="#e2b93b")
        right = self.image.width - self.margin
        for name, value in reversed(facts):
            wide = max(self._width(value, 17), self._width(name, 11))
            if right - wide < self.image.width * 0.3:
                break  # no room: the page shows all of them
            self._text((right - wide, self._px(22)), value, 17, "#ffffff")
            self._text((right - wide, self._px(46)), name, 11, "#aeb8c6")
            right -= round(wide) + self._px(30)
        self._text((self.margin, self._px(24)), title, 26, "#ffffff", room=right - self.margin, heavy=True)

    def row(self, index: int, row: SheetRow) -> None:
        y = self.top + index * (self.card_h + self.gap)
        x = self.margin
        self._card(x, y, row.query_path, QUERY)
        note = row.query_note or (f"{row.took_ms:.1f} ms" if row.took_ms is not None else "")
        self._texts(x, y, "query", row.query_label or "no label", note)
        x += self.card_w
        self._arrow(x + self.arrow_w / 2, y + self.pad + self.tile / 2)
        x += self.arrow_w
        for match in row.matches:
            self._match(x, y, match)
            x += self.card_w + self.gap
        if not row.matches:
            self._text((x, y + self.card_h / 2), "no match", 14, _SOFT)

    def _match(self, x: int, y: int, match: SheetMatch) -> None:
        colour = _LINE if match.is_right is None else RIGHT if match.is_right else WRONG
        self._card(x, y, match.path, colour)
        name = match.metadata.get("name")
        self._texts(x, y, match.id, match.label, name if isinstance(name, str) else "")
        self._score(x, y, match.score, _SOFT if match.is_right is None else colour)
        if match.is_right is not None:
            self._mark(x + self.card_w - self._px(17), y + self._px(17), is_right=match.is_right)

    def _card(self, x: int, y: int, path: str | Path | None, colour: str) -> None:
        self._rounded((x, y, x + self.card_w, y + self.card_h), self._px(9), colour)
        line = max(1, self._px(1 if colour == _LINE else 2.5))
        self._rounded((x + line, y + line, x + self.card_w - line, y + self.card_h - line), self._px(9) - line, _CARD)
        left, top = x + self.pad, y + self.pad
        shown = thumbnail(path, self.tile)
        if shown is None:
            self.draw.rectangle((left, top, left + self.tile - 1, top + self.tile - 1), fill=_GAP_FILL)
            words = "no picture"
            self._text(
                (left + (self.tile - self._width(words, 12.5)) / 2, top + self.tile / 2 - self._px(8)), words, 12.5, _SOFT
            )
            return
        self.draw.rectangle((left, top, left + self.tile - 1, top + self.tile - 1), fill="#f4f5f7")
        self.image.paste(shown, (left + (self.tile - shown.width) // 2, top + (self.tile - shown.height) // 2))

    def _texts(self, x: int, y: int, first: str, second: str, third: str) -> None:
        top = y + self.pad + self.tile + self._px(7)
        room = self.tile
        is_query = first == "query"
        self._text(
            (x + self.pad, top),
            first,
            12.5,
            QUERY if is_query else _INK,
            room=room - (0 if is_query else self._px(46)),
            heavy=True,
        )
        self._text((x + self.pad, top + self._px(19)), second, 12.5, _INK, room=room)
        self._text((x + self.pad, top + self._px(38)), third, 11, _SOFT, room=room)

    def _score(self, x: int, y: int, score: float, colour: str) -> None:
        text = f"{score:.3f}"
        right, top = x + self.card_w - self.pad, y + self.pad + self.tile
        self._text((right - self._width(text, 12.5), top + self._px(7)), text, 12.5, colour, heavy=True)
        full = self.tile * min(max(score, 0.0), 1.0)
        self.draw.rectangle((x + self.pad, top + self._px(1), right - 1, top + self._px(3)), fill="#e6e9ee")
        if full >= 1:
            self.draw.rectangle((x + self.pad, top + self._px(1), x + self.pad + full - 1, top + self._px(3)), fill=colour)

    def _mark(self, x: float, y: float, *, is_right: bool) -> None:
        radius, zoom = self._px(12), 4
        big = Image.new("RGBA", (2 * radius * zoom,) * 2)
        draw = ImageDraw.Draw(big)
        full = big.width
        draw.ellipse((0, 0, full - 1, full - 1), fill="#ffffff")
        rim = full * 0.07
        draw.ellipse((rim, rim, full - rim, full - rim), fill=RIGHT if is_right else WRONG)
        tick = [(0.27, 0.53), (0.44, 0.69), (0.74, 0.35)]
        strokes = [tick] if is_right else [[(0.33, 0.33), (0.67, 0.67)], [(0.67, 0.33), (0.33, 0.67)]]
        for stroke in strokes:
            points = [(u * full, v * full) for u, v in stroke]
            draw.line(points, fill="#ffffff", width=round(full * 0.1), joint="curve")
        small = big.resize((2 * radius,) * 2, Image.Resampling.LANCZOS)
        self.image.paste(small, (round(x - radius), round(y - radius)), small)

    def _arrow(self, x: float, y: float) -> None:
        half, head = self._px(11), self._px(6)
        self.draw.line((x - half, y, x + half - 1, y), fill=_SOFT, width=max(1, self._px(2)))
        self.draw.polygon([(x + half + 1, y), (x + half - head, y - head), (x + half - head, y + head)], fill=_SOFT)

    def _rounded(self, box: Box, radius: float, colour: str) -> None:
        width, height, zoom = round(box[2] - box[0]), round(box[3] - box[1]), 3
        mask = Image.new("L", (width * zoom, height * zoom))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * zoom - 1, height * zoom - 1), radius * zoom, fill=255)
        self.image.paste(colour, (round(box[0]), round(box[1])), mask.resize((width, height), Image.Resampling.BOX))

    def _width(self, text: str, size: float) -> float:
        return self.fonts[size].getlength(_printable(text))

    def _text(
        self, at: tuple[float, float], text: str, size: float, colour: str, *, room: float | None = None, heavy: bool = False
    ) -> None:
        text = _printable(text)
        if room is not None:
            text = shortened(text, room, self.fonts[size])
        for shift in (0.0, 0.035 * size * self.unit) if heavy else (0.0,):  # the built-in font has no bold
            self.draw.text((at[0] + shift, at[1]), text, fill=colour, font=self.fonts[size])


def _printable(text: str) -> str:
    """The text in characters that Pillow's built-in font can draw."""
    swaps = {"×": "x", "→": ">", "−": "-", "–": "-", "—": "-", "ß": "ss", "ø": "o", "æ": "ae", "µ": "u", "≥": ">=", "≤": "<="}
    spelled = "".join(swaps.get(sign, sign) for sign in text[:2000])
    folded = unicodedata.normalize("NFKD", spelled.replace("…", "\0"))
    kept = (sign for sign in folded if not unicodedata.combining(sign))
    return "".join("…" if sign == "\0" else sign if " " <= sign <= "~" or sign in "·°±©" else "?" for sign in kept)


def shortened(text: str, room_px: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text if it fits, else its beginning and its end around an ellipsis: the ends of ids are what differs."""
    if font.getlength(text) <= room_px:
        return text
    low, high = 0, len(text) - 1  # how many characters stay; `low` always fits
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(_around(text, middle)) <= room_px else (low, middle - 1)
    return _around(text, low)


def _around(text: str, kept: int) -> str:
    tail = kept // 2
    return text[: kept - tail] + "…" + text[len(text) - tail :]


def html_page(
    rows: Sequence[SheetRow], path: str | Path, *, title: str = "binsight", facts: Facts = (), thumb_px: int = 224
) -> Path:
    """Write one HTML file that needs nothing beside it: thumbnails inside, light or dark as the reader's system, no script."""
    if not 32 <= thumb_px <= 1024:
        raise BadSettings(f"want thumb_px from 32 to 1024, got {thumb_px}")
    shown_facts = "".join(f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>" for name, value in facts)
    body = "".join(_row_html(row, thumb_px) for row in rows) or "<p>No queries.</p>"
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_safe(title)}</h1><dl>{shown_facts}</dl></header>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # file names may hold what UTF-8 cannot
    return path


def _safe(text: object) -> str:
    return html.escape(str(text), quote=True)


def _row_html(row: SheetRow, thumb_px: int) -> str:
    took = f"<small>{row.took_ms:.1f} ms</small>" if row.took_ms is not None else ""
    note = f"<small>{_safe(row.query_note)}</small>" if row.query_note else ""
    matches = "".join(f"<li>{_match_html(match, thumb_px)}</li>" for match in row.matches) or "<li>no match</li>"
    return (
        f'<section><figure class="query">{_image_html(row.query_path, row.query_label, thumb_px)}'
        f"<figcaption><b>Query</b><span>{_safe(row.query_label)}</span>{note}{took}</figcaption></figure>"
        f"<ol>{matches}</ol></section>\n"
    )


def _match_html(match: SheetMatch, thumb_px: int) -> str:
    kind = "unknown" if match.is_right is None else "right" if match.is_right else "wrong"
    mark = {"unknown": "", "right": '<i class="mark">✓ right</i>', "wrong": '<i class="mark">✗ wrong</i>'}[kind]
    share = 100 * min(max(match.score, 0.0), 1.0)
    record = "".join(
        f"<tr><th>{_safe(name)}</th><td>{_safe(_value(value))}</td></tr>" for name, value in match.metadata.items()
    )
    details = f"<details><summary>record</summary><table>{record}</table></details>" if record else ""
    return (
        f'<figure class="{kind}">{mark}{_image_html(match.path, match.id, thumb_px)}'
        f'<div class="bar"><div style="width:{share:.1f}%"></div></div>'
        f"<figcaption><b>{_safe(match.id)}</b><span>{_safe(match.label)}</span><data>{match.score:.3f}</data>"
        f"{details}</figcaption></figure>"
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _image_html(path: str | Path | None, words: str, thumb_px: int) -> str:
    shown = thumbnail(path, thumb_px)
    if shown is None:
        return '<div class="gone">no picture</div>'
    data = io.BytesIO()
    shown.save(data, "JPEG", quality=82)
    return f'<img alt="{_safe(words)}" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode("ascii")}">'


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = f"""
:root {{ color-scheme: light dark; --paper: {_PAPER}; --card: {_CARD}; --ink: {_INK}; --soft: {_SOFT}; --line: {_LINE};
  --right: {RIGHT}; --wrong: {WRONG}; --query: {QUERY}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #14181e; --card: #1f252e; --ink: #e8ebef; --soft: #9aa5b3;
  --line: #38414d; --right: #3fbf83; --wrong: #f0766c; --query: #7fa6ee; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }}
header {{ background: #1d2430; color: #fff; border-bottom: 3px solid #e2b93b; padding: 1rem clamp(1rem, 3vw, 2.5rem);
  display: flex; flex-wrap: wrap; gap: .6rem 2.5rem; align-items: center; justify-content: space-between; }}
h1 {{ font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }}
dl {{ display: flex; flex-wrap: wrap; gap: .4rem 1.8rem; margin: 0; }}
dl div {{ display: flex; flex-direction: column-reverse; }}
dt {{ font-size: .75rem; color: #aeb8c6; }} dd {{ margin: 0; font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; }}
main {{ padding: 1.2rem clamp(1rem, 3vw, 2.5rem); max-width: 1500px; margin: auto; }}
section {{ display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 1.6rem; margin-bottom: 1.4rem; }}
ol {{ list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(168px, 45%), 1fr)); }}
figure {{ position: relative; margin: 0; background: var(--card); border: 2px solid var(--line);
  border-radius: 10px; padding: .5rem; }}
figure.query {{ border-color: var(--query); align-self: start; }} figure.query b {{ color: var(--query); }}
figure.right {{ border-color: var(--right); }} figure.wrong {{ border-color: var(--wrong); }}
img, .gone {{ display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px; background: #8883; }}
.gone {{ display: grid; place-items: center; color: var(--soft); }}
.mark {{ position: absolute; top: .2rem; right: .2rem; padding: .05rem .5rem; border-radius: 1rem;
  font: 600 .78rem system-ui, sans-serif; color: var(--card); background: var(--right); border: 2px solid var(--card); }}
.wrong .mark {{ background: var(--wrong); }}
.bar {{ height: 4px; margin: .3rem 0; background: #8883; border-radius: 2px; }}
.bar div {{ height: 100%; background: var(--soft); border-radius: 2px; }}
.right .bar div {{ background: var(--right); }} .wrong .bar div {{ background: var(--wrong); }}
figcaption {{ display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .5rem; }}
figcaption b {{ flex-basis: 100%; margin-top: .15rem; font-size: .9rem; overflow-wrap: anywhere; }}
figcaption data {{ font-weight: 600; font-variant-numeric: tabular-nums; }}
figcaption span {{ flex: 1; min-width: 0; overflow-wrap: anywhere; }}
figcaption small, details {{ flex-basis: 100%; overflow-wrap: anywhere; }}
small, details {{ color: var(--soft); font-size: .8rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .1rem .3rem .1rem 0;
  font-weight: normal; overflow-wrap: anywhere; }} td {{ color: var(--ink); }}
@media (max-width: 640px) {{ section {{ grid-template-columns: 1fr; }} figure.query {{ max-width: 190px; }} }}
"""
