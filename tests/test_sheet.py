"""The contact sheet and the page: what one sees, and that nobody's text gets out of its place."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from binsight.errors import BadSettings
from binsight.sheet import QUERY, RIGHT, WRONG, SheetMatch, SheetRow, contact_sheet, html_page, shortened, thumbnail

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;"


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 32), (200, 0, 0)).save(path)
    return path


def points_of(path: Path, colour: str | tuple[int, int, int]) -> int:
    """How many points of a picture have exactly this colour."""
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    with Image.open(path) as image:
        return int((np.asarray(image) == wanted).all(axis=2).sum())


class Page(HTMLParser):
    """The tags, attributes and texts of a page, as a browser's parser sees them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_sheet_has_a_line_for_each_query_and_a_place_for_each_match(tmp_path: Path, red: Path) -> None:
    def size(queries: int, matches: int) -> tuple[int, int]:
        row = SheetRow(red, "a", [SheetMatch(red, "id", 0.5)] * matches)
        with Image.open(contact_sheet([row] * queries, tmp_path / "sheet.png", tile_px=160)) as image:
            assert image.mode == "RGB"
            return image.size

    # at tile 160 a card is 176 by 242 and 12 apart; margins 26, arrow 46, header 104
    assert size(1, 5) == (26 + 176 + 46 + 5 * 176 + 4 * 12 + 26, 104 + 242 + 26)
    assert size(3, 5) == (26 + 176 + 46 + 5 * 176 + 4 * 12 + 26, 104 + 3 * 242 + 2 * 12 + 26)
    assert size(1, 6)[0] - size(1, 5)[0] == 176 + 12


def test_pictures_are_shown_whole(tmp_path: Path, red: Path) -> None:
    path = contact_sheet([SheetRow(red, "a", [SheetMatch(red, "id", 0.5)])], tmp_path / "sheet.png", tile_px=160)
    assert points_of(path, (200, 0, 0)) == pytest.approx(2 * 160 * 80, rel=0.01)


@pytest.mark.parametrize(("is_right", "shown", "hidden"), [(True, RIGHT, WRONG), (False, WRONG, RIGHT)])
def test_a_match_is_marked_right_or_wrong_by_colour(tmp_path: Path, red: Path, is_right: bool, shown: str, hidden: str) -> None:
    row = SheetRow(red, "a", [SheetMatch(red, "id", 0.5, is_right=is_right)])
    path = contact_sheet([row], tmp_path / "sheet.png")
    assert points_of(path, shown) > 1000
    assert points_of(path, hidden) == 0
    assert points_of(path, QUERY) > 1000


def test_marks_differ_in_their_sign_and_not_in_colour_alone(tmp_path: Path, red: Path) -> None:
    signs = []
    for is_right, colour in ((True, RIGHT), (False, WRONG)):
        path = contact_sheet(
            [SheetRow(red, "", [SheetMatch(None, "", 0.0, is_right=is_right)])], tmp_path / "s.png", tile_px=160
        )
        with Image.open(path) as image:
            corner = np.asarray(image.crop((248 + 176 - 29, 104 + 5, 248 + 176 - 5, 104 + 29)))  # the mark's 24 by 24 points
        signs.append((corner != ImageColor.getrgb(colour)).any(axis=2))
    assert (signs[0] != signs[1]).mean() > 0.1


def test_without_a_known_truth_nothing_is_marked(tmp_path: Path, red: Path) -> None:
    path = contact_sheet([SheetRow(red, "a", [SheetMatch(red, "id", 0.5)])], tmp_path / "sheet.png")
    assert points_of(path, RIGHT) == points_of(path, WRONG) == 0
    assert not {"right", "wrong"} & {
        v for _, v in Page(html_page([SheetRow(red, "a", [SheetMatch(red, "id", 0.5)])], path)).attributes
    }


def test_a_longer_bar_is_a_larger_score(tmp_path: Path, red: Path) -> None:
    def bar(score: float) -> int:
        path = contact_sheet([SheetRow(red, "", [SheetMatch(red, "", score, is_right=True)])], tmp_path / "s.png", tile_px=160)
        with Image.open(path) as image:
            line = np.asarray(image)[104 + 8 + 160 + 2, 248 + 8 : 248 + 168]
        return int((line == ImageColor.getrgb(RIGHT)).all(axis=1).sum())

    assert [bar(score) for score in (-0.5, 0.0, 0.25, 1.0)] == [0, 0, pytest.approx(40, abs=1), 160]


def test_a_missing_or_broken_picture_is_a_grey_box(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    matches = [SheetMatch(tmp_path / "gone.jpg", "a", 0.1), SheetMatch(broken, "b", 0.1), SheetMatch(None, "c", 0.1)]
    path = contact_sheet([SheetRow(tmp_path, "a folder", matches)], tmp_path / "sheet.png", tile_px=160)
    assert points_of(path, "#c9cdd3") > 4 * 0.9 * 160 * 160
    page = Page(html_page([SheetRow(tmp_path, "a folder", matches)], tmp_path / "page.html"))
    assert page.texts.count("no picture") == 4
    assert "img" not in page.tags


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_pictures_of_any_mode_are_shown(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("p.tif" if mode in ("CMYK", "I", "F") else "p.png")
    Image.new(mode, (300, 200)).save(path)
    shown = thumbnail(path, 100)
    assert shown is not None
    assert (shown.mode, shown.size) == ("RGB", (100, 67))


def test_what_is_transparent_is_white_and_sixteen_bits_keep_their_greys(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = thumbnail(tmp_path / "clear.png", 8)
    assert clear is not None
    assert clear.getpixel((4, 4)) == (255, 255, 255)
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16).repeat(3, axis=0)).save(tmp_path / "deep.png")
    deep = thumbnail(tmp_path / "deep.png", 3)
    assert deep is not None
    assert [deep.getpixel((x, 1)) for x in range(3)] == [(0,) * 3, (127,) * 3, (255,) * 3]


def test_a_turned_photo_is_shown_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "turned.jpg", exif=exif)
    shown = thumbnail(tmp_path / "turned.jpg", 40)
    assert shown is not None
    assert shown.size == (20, 40)


def test_a_long_id_keeps_its_beginning_and_its_end() -> None:
    font = ImageFont.load_default(12)
    short = shortened("shelf-0001/part-" + "x" * 200 + "/view-42", 150, font)
    assert font.getlength(short) <= 150
    assert re.fullmatch(r"shelf-.*….*view-42", short)
    assert shortened("short", 150, font) == "short"
    assert shortened("never fits", 1, font) == "…"


def test_a_sheet_takes_texts_of_every_script(tmp_path: Path, red: Path) -> None:
    row = SheetRow(red, "螺丝 \x00\n\ud800", [SheetMatch(red, "é×→" * 500, 0.5, "ñ", metadata={"name": 3})], query_note="↔")
    assert contact_sheet([row], tmp_path / "sheet.png", title="ß" * 999, facts=[("μ", "≥ 1")] * 40).exists()
    assert "螺丝" in html_page([row], tmp_path / "page.html").read_text(encoding="utf-8")


def test_no_text_becomes_html(tmp_path: Path, red: Path) -> None:
    match = SheetMatch(red, HOSTILE, 0.9, HOSTILE, True, {HOSTILE: HOSTILE, "deep": {"list": [HOSTILE]}})
    row = SheetRow(red, HOSTILE, [match], 1.25, HOSTILE)
    page = Page(html_page([row], tmp_path / "page.html", title=HOSTILE, facts=[(HOSTILE, HOSTILE)]))
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/jpeg;base64,") for name, value in page.attributes if name == "src")
    assert "".join(page.texts).count(HOSTILE) == 11  # each of them is there, as text


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path, red: Path) -> None:
    path = html_page([SheetRow(red, "a", [SheetMatch(red, "id", 0.5, is_right=True)])], tmp_path / "page.html", thumb_px=64)
    page = Page(path)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", path.read_text(encoding="utf-8"))
    sources = [value for name, value in page.attributes if name == "src"]
    with Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1]))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 32))


def test_the_page_tells_score_truth_and_record(tmp_path: Path, red: Path) -> None:
    matches = [SheetMatch(red, "first", 0.98765, "gear", True, {"price": 1.5}), SheetMatch(red, "second", -0.1, "bolt", False)]
    page = Page(html_page([SheetRow(red, "gear", matches, 3.21)], tmp_path / "page.html", facts=[("recall@1", "97 %")]))
    for text in ("first", "0.988", "✓ right", "price", "1.5", "second", "-0.100", "✗ wrong", "3.2 ms", "recall@1", "97 %"):
        assert text in page.texts


def test_no_queries_and_no_matches_are_said(tmp_path: Path, red: Path) -> None:
    assert "No queries." in Page(html_page([], tmp_path / "page.html")).texts
    assert "no match" in Page(html_page([SheetRow(red, "a", [])], tmp_path / "page.html")).texts
    for rows in ([], [SheetRow(red, "a", [])]):
        assert contact_sheet(rows, tmp_path / "sheet.png").exists()


def test_sizes_out_of_range_are_named(tmp_path: Path, red: Path) -> None:
    with pytest.raises(BadSettings, match="want tile_px from 48 to 1024, got 5"):
        contact_sheet([], tmp_path / "sheet.png", tile_px=5)
    with pytest.raises(BadSettings, match="want thumb_px from 32 to 1024, got 5000"):
        html_page([], tmp_path / "page.html", thumb_px=5000)
    with pytest.raises(BadSettings, match=r"a sheet of 1000 queries would be .* px tall"):
        contact_sheet([SheetRow(red, "a", [])] * 1000, tmp_path / "sheet.png")
