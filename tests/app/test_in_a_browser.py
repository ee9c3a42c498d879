"""The screens as an engineer meets them: Debian's Chromium, driven by Playwright, on a store of painted pictures."""

from __future__ import annotations

import csv
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from binsight.app.attempts import BURST
from binsight.app.visitors import GRACE_S
from tests.app.conftest import bin_photo, chromium, shown
from tests.fakes import paint

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a green picture with a moving disc
PHONE: ViewportSize = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    expect.set_options(timeout=30_000)  # the model's first answer takes more than 5 s where many tests run at once
    with sync_playwright() as play:
        running = play.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *CAMERA]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    """One page for all tests, as one visitor has it: nothing may be asked of any other host, and no script may fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    found = context.new_page()
    hosts: set[str | None] = set()
    failures: list[str] = []
    found.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    found.on("pageerror", lambda error: failures.append(str(error)))
    found.set_default_timeout(20_000)
    found.goto(url)
    yield found
    assert hosts - {None} == {"127.0.0.1"}  # None: data: and blob:
    assert failures == []
    context.close()


@pytest.fixture
def fresh(page: Page, url: str) -> Page:
    """The page as after a reload, on a desktop's screen."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(url)
    expect(page.get_by_role("tab", name="Find a part")).to_be_visible()
    return page


def choose_photo(page: Page, name: str, path: Path) -> None:
    page.locator(f"#{name}-photo input[type=file]").set_input_files(path)


def captions(page: Page) -> list[str]:
    return page.locator("#find-matches .caption-label").all_inner_texts()


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def said(page: Page, name: str) -> Locator:
    return page.locator(f"#{name}-said")


def test_a_photo_finds_what_looks_like_it_and_a_click_shows_its_record(fresh: Page, tmp_path: Path) -> None:
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    expect(said(fresh, "find")).to_contain_text("The nearest item is RAM-1, with a score of 1.00; 4 more, down to ")
    assert captions(fresh)[:2] == ["1.00 · RAM-1 · ram · quantity 4 · shelf A1", "0.98 · RAM-2 · ram · quantity 1 · shelf B2"]
    fresh.locator("#find-matches button.thumbnail-item").first.click()
    expect(fresh.locator("#find-record")).to_contain_text("The record of RAM-1")
    expect(fresh.locator("#find-record")).to_contain_text("0.png")
    fresh.get_by_role("button", name="More like this").click()
    expect(said(fresh, "find")).to_contain_text("Nearest to RAM-1 is RAM-2, with a score of 0.98; 3 more, down to ")
    assert captions(fresh)[0].startswith("0.98 · RAM-2")


def test_filters_come_from_the_store_and_what_is_too_far_is_told(fresh: Page, tmp_path: Path) -> None:
    fresh.get_by_role("button", name="How many, how near, and which").click()
    fresh.locator("#find-field-1 input").click()
    expect(fresh.get_by_role("option", name="label")).to_be_visible()
    assert set(fresh.get_by_role("option").all_inner_texts()) >= {"label", "quantity", "shelf", "note", "path"}
    fresh.get_by_role("option", name="shelf").click()
    fresh.locator("#find-value-1 input").click()
    fresh.get_by_role("option", name="A1").click()
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    expect(said(fresh, "find")).to_contain_text("The nearest item is RAM-1, with a score of 1.00; 1 more, down to ")
    fresh.locator("#find-where textarea, #find-where input").first.fill("quantity > 5")
    fresh.keyboard.press("Enter")
    expect(said(fresh, "find")).to_contain_text("The nearest item is FAN-1, with a score of ")
    fresh.locator("#find-cut-off input[type=number]").fill("0.9")
    fresh.get_by_role("button", name="Find", exact=True).click()
    expect(said(fresh, "find")).to_contain_text("Nothing in the store is near enough: the nearest item, FAN-1, has a score of")
    fresh.locator("#find-where textarea, #find-where input").first.fill("quantity >")
    fresh.get_by_role("button", name="Find", exact=True).click()
    expect(said(fresh, "find")).to_contain_text("That cannot be done as asked: ")


def test_what_a_record_says_is_text_and_nothing_else(fresh: Page, tmp_path: Path) -> None:
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (120, 120, 30), (96, 72)))
    expect(said(fresh, "find")).to_contain_text("The nearest item is <b>BOLD</b>")
    fresh.locator("#find-matches button.thumbnail-item").first.click()
    expect(fresh.locator("#find-record")).to_contain_text("<script>document.title='hacked'</script>")
    expect(fresh.locator("#find-record")).to_contain_text(
        "${document.title='hacked'} {{value}} ![x](http://elsewhere.example/x.png)"
    )
    assert fresh.title() == "binsight"


def test_a_tap_crops_the_photo(fresh: Page, tmp_path: Path) -> None:
    """Left half red, right half green: what is tapped is found."""
    photo = paint(tmp_path / "halves.png", (200, 30, 30), (1000, 750))
    from PIL import Image

    image = Image.open(photo)
    image.paste((30, 200, 30), (500, 0, 1000, 750))
    image.save(photo)
    choose_photo(fresh, "find", photo)
    expect(fresh.locator("#find-photo img")).to_be_visible()
    shown = fresh.locator("#find-photo img").bounding_box()
    assert shown is not None
    fresh.mouse.click(shown["x"] + shown["width"] * 0.85, shown["y"] + shown["height"] * 0.5)
    expect(fresh.locator("#find-view img")).to_be_visible()
    expect(said(fresh, "find")).to_contain_text("FAN-1")
    fresh.mouse.click(shown["x"] + shown["width"] * 0.85, shown["y"] + shown["height"] * 0.5)
    expect(said(fresh, "find")).to_contain_text("The nearest item is FAN-1, with a score of 1.00")


def test_a_bin_is_counted_and_compared_with_the_books(fresh: Page, tmp_path: Path) -> None:
    open_tab(fresh, "Count a bin")
    choose_photo(fresh, "count", bin_photo(tmp_path / "two.png", 2))
    expect(said(fresh, "count")).to_contain_text("The photo most likely shows 2 items (80% sure); the interval is 2 to 3.")
    expect(fresh.locator("#count-books")).to_contain_text("Give the bin's id or the recorded quantity")
    expect(fresh.locator("#count-plot tr")).to_have_text(["00%", "10%", "280%", "320%", "40%", "50%", ">50%"])
    fresh.locator("#count-id input, #count-id textarea").first.fill("DISK-1")
    fresh.get_by_role("button", name="Count", exact=True).click()
    expect(fresh.locator("#count-books")).to_contain_text(
        "They agree: the books say 2, and the photo shows 2 with a probability of 80%."
    )
    expect(fresh.locator("#count-plot tr.marked")).to_have_text("in the books: 280%")
    expect(fresh.locator("#count-record")).to_contain_text("The record of DISK-1")
    fresh.locator("#count-recorded input, #count-recorded textarea").first.fill("5")
    fresh.get_by_role("button", name="Count", exact=True).click()
    expect(fresh.locator("#count-books")).to_contain_text("They disagree: the books say 5")
    fresh.locator("#count-id input, #count-id textarea").first.fill("NONE")
    fresh.get_by_role("button", name="Count", exact=True).click()
    expect(said(fresh, "count")).to_contain_text("the store holds no item NONE")


def test_many_are_sorted_by_their_disagreement(fresh: Page, tmp_path: Path) -> None:
    rows = ["path,id,quantity", "a.png,A,2", "b.png,B,3", "c.png,C,5", "gone.png,D,1", "bad.png,E,1"]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with zipfile.ZipFile(tmp_path / "bins.zip", "w") as out:
        out.writestr("manifest.csv", "\n".join(rows))
        out.write(tmp_path / "bad.png", "bad.png")
        for name in "abc":
            out.write(bin_photo(tmp_path / f"{name}.png", 2), f"{name}.png")
    open_tab(fresh, "Check many")
    fresh.locator("#check-files input[type=file]").set_input_files(tmp_path / "bins.zip")
    expect(said(fresh, "check")).to_contain_text(
        "3 photos were checked: 1 disagrees with the books. 2 rows or photos were refused"
    )
    cells = fresh.locator("#check-rows tbody tr td:nth-child(-n+5)").all_inner_texts()
    assert cells == ["C", "5", "2", "disagrees", "1.0", "B", "3", "2", "may agree", "0.8", "A", "2", "2", "agrees", "0.2"]
    assert fresh.locator("#check-photos .caption-label").all_inner_texts() == [
        "C: recorded 5, seen 2", "B: recorded 3, seen 2", "A: recorded 2, seen 2",
    ]  # fmt: skip
    with fresh.expect_download() as download:
        fresh.locator("#check-csv").click()
    table = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [(row["id"], row["disagreement"]) for row in table] == [("C", "1.0"), ("B", "0.8"), ("A", "0.2"), ("", ""), ("", "")]


def test_a_check_that_is_stopped_ends_and_another_one_may_begin(
    browser: Browser, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 photos at half a second each. What a check works on lies in a folder of its own for as long as it works."""
    (tmp_path / "app").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "app"))
    folder = tmp_path / "many"
    for number in range(100):
        bin_photo(folder / f"{number}.png", 2)
    (folder / "stock.csv").write_text("path,quantity\n" + "".join(f"{number}.png,2\n" for number in range(100)))
    bin_photo(tmp_path / "one/a.png", 2)
    (tmp_path / "one/stock.csv").write_text("path,quantity\na.png,2\n")
    with shown(stock / "parts.store", delay_s=0.5) as url, browser.new_page() as page:
        page.goto(url)
        open_tab(page, "Check many")
        page.locator("#check-folder input[type=file]").set_input_files(folder)
        expect(said(page, "check")).to_contain_text("/100 photos", timeout=20_000)
        assert list((tmp_path / "app").glob("*/work/tmp*"))
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(said(page, "check")).to_contain_text("Stopped: nothing is being checked now.", timeout=20_000)
        expect(said(page, "check")).not_to_contain_text("/100 photos")
        deadline = time.monotonic() + GRACE_S - 1  # sooner than it ends where nobody waits
        while list((tmp_path / "app").glob("*/work/tmp*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        page.locator("#check-files input[type=file]").set_input_files([tmp_path / "one/a.png", tmp_path / "one/stock.csv"])
        expect(said(page, "check")).to_contain_text("One photo was checked: 0 disagree with the books.", timeout=15_000)


def test_the_table_of_a_check_is_not_clipped(fresh: Page, tmp_path: Path) -> None:
    name = "a-rather-long-name-of-a-photo"
    bin_photo(tmp_path / f"stock/{name}.png", 2)
    (tmp_path / "stock/stock.csv").write_text(f"path,quantity\n{name}.png,4\n")
    open_tab(fresh, "Check many")
    fresh.locator("#check-folder input[type=file]").set_input_files(tmp_path / "stock")
    expect(fresh.locator("#check-rows tbody tr")).to_have_count(1)
    for width in (1280, 1010, 900, 820):
        fresh.set_viewport_size({"width": width, "height": 900})
        wide, seen = fresh.locator("#check-rows .wide").evaluate("one => [one.scrollWidth, one.clientWidth]")
        assert wide <= seen, width
    fresh.set_viewport_size(PHONE)
    title = fresh.get_by_text("Photo against books, the largest disagreement first").bounding_box()
    assert title is not None
    assert title["x"] + title["width"] <= PHONE["width"]


def test_the_table_of_matches_shows_whole_records(fresh: Page, tmp_path: Path) -> None:
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    fresh.get_by_role("button", name="The same as a table").click()
    expect(fresh.locator("#find-rows tbody tr")).to_have_count(5)
    for width in (1280, 900, PHONE["width"]):
        fresh.set_viewport_size({"width": width, "height": 900})
        wide, seen = fresh.locator("#find-rows .wide").evaluate("one => [one.scrollWidth, one.clientWidth]")
        assert wide <= seen, width


def test_a_picture_is_pasted_from_the_clipboard_by_the_keyboard(browser: Browser, url: str) -> None:
    with browser.new_context() as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        page = context.new_page()
        page.goto(url)
        page.evaluate(
            """async () => {
              const canvas = Object.assign(document.createElement("canvas"), {width: 96, height: 72});
              const pen = canvas.getContext("2d");
              pen.fillStyle = "rgb(30, 200, 30)";
              pen.fillRect(0, 0, 96, 72);
              const blob = await new Promise(done => canvas.toBlob(done, "image/png"));
              await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
            }"""
        )
        page.locator("#find-photo").get_by_label("Paste from clipboard").focus()
        page.keyboard.press("Enter")
        expect(said(page, "find")).to_contain_text("The nearest item is FAN-1, with a score of 1.00", timeout=20_000)
        expect(page.get_by_role("img", name="The chosen photo")).to_be_visible()


def test_a_photo_is_taken_with_the_camera(fresh: Page) -> None:
    find = fresh.locator("#find-photo")
    find.get_by_label("Capture from camera").click()
    find.get_by_role("button", name="Click to Access Webcam").click()
    shows = "document.querySelector('#find-photo video')?.videoWidth > 0"  # before, there is nothing to take
    fresh.wait_for_function(shows, timeout=20_000)
    find.get_by_role("button", name="capture photo").click()
    expect(said(fresh, "find")).to_contain_text("; 4 more, down to ", timeout=20_000)
    expect(fresh.get_by_role("img", name="The chosen photo")).to_be_visible()


def test_a_folder_is_checked_too(fresh: Page, tmp_path: Path) -> None:
    bin_photo(tmp_path / "stock/bins/a.png", 2)
    (tmp_path / "stock/stock.csv").write_text("path,pieces\nbins/a.png,4\n")
    open_tab(fresh, "Check many")
    fresh.locator("#check-folder input[type=file]").set_input_files(tmp_path / "stock")
    expect(said(fresh, "check")).to_contain_text("want a column quantity, count, stock, or a name for it in the manifest")
    fresh.locator("#check-column input, #check-column textarea").first.fill("pieces")
    fresh.get_by_role("button", name="Check", exact=True).click()
    expect(said(fresh, "check")).to_contain_text("One photo was checked: 1 disagrees with the books.")


def test_what_is_no_photo_or_too_large_is_told_in_a_sentence(fresh: Page, tmp_path: Path) -> None:
    """Also after an example, whose click must not bring back Gradio's own reading of photos."""
    fresh.locator(".gallery-item:visible").first.click()
    expect(said(fresh, "find")).to_contain_text("; 4 more, down to ")
    fresh.get_by_label("Remove Image").first.click()
    expect(said(fresh, "find")).to_contain_text("Take or choose a photo")
    (tmp_path / "note.png").write_bytes(b"this is no picture")
    choose_photo(fresh, "find", tmp_path / "note.png")
    expect(said(fresh, "find")).to_contain_text("The photo cannot be used: not a picture")
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(30_000_000))
    fresh.get_by_label("Remove Image").first.click()
    choose_photo(fresh, "find", tmp_path / "large.jpg")
    expect(said(fresh, "find")).to_contain_text("The photo cannot be used: too large: 30,000,003 bytes")


def test_the_store_is_told(fresh: Page) -> None:
    open_tab(fresh, "The store")
    expect(fresh.locator("#store-about")).to_contain_text("colour-counter")
    expect(said(fresh, "store")).to_contain_text(
        "The store holds 5 items; fields to filter by are label, note, path, quantity, shelf."
    )
    assert len(fresh.locator("#store-sample .caption-label").all_inner_texts()) == 5
    fresh.get_by_role("button", name="Check its health").click()
    expect(said(fresh, "store")).to_contain_text("The store is sound")


def test_everything_is_reached_by_the_keyboard(fresh: Page, tmp_path: Path) -> None:
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    expect(said(fresh, "find")).to_contain_text("The nearest item is RAM-1")
    reached = []
    for _ in range(60):
        fresh.keyboard.press("Tab")
        reached.append(
            fresh.evaluate("document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || ''")
        )
        if fresh.evaluate(
            "document.activeElement.closest('#find-matches') !== null && document.activeElement.matches('.thumbnail-item')"
        ):
            break
    assert any("Count a bin" in one for one in reached), reached
    assert any(one.strip() == "Find" for one in reached), reached
    fresh.keyboard.press("Enter")
    expect(fresh.locator("#find-record")).to_contain_text("The record of RAM-1")
    fresh.get_by_role("tab", name="Find a part").focus()
    fresh.keyboard.press("Tab")
    fresh.keyboard.press("Enter")
    expect(fresh.locator("#count-go")).to_be_visible()


def test_a_crop_is_seen_when_a_key_moves_an_edge(fresh: Page, tmp_path: Path) -> None:
    """The edges are shown before the photo is there: for some milliseconds after that Gradio still sets them."""
    fresh.get_by_role("button", name="Crop: tap the part").press("Enter")
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    expect(said(fresh, "find")).to_contain_text("The nearest item is RAM-1")
    fresh.get_by_role("slider", name="Left edge").press("PageUp")
    expect(fresh.locator("#find-view img")).to_be_visible()


def test_screen_readers_are_told_what_is_what(fresh: Page, tmp_path: Path) -> None:
    """Gradio says "Thumbnail 1 of 5" of a match, nothing of an example, and the same of each upload button."""
    fresh.get_by_role("button", name="Example 1", exact=True).and_(fresh.locator(":visible")).click()
    expect(said(fresh, "find")).to_contain_text("; 4 more, down to ")
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    match = fresh.get_by_role("button", name="1.00 · RAM-1 · ram · quantity 4 · shelf A1", exact=True)
    expect(match).to_be_visible()
    expect(fresh.get_by_role("img", name="The chosen photo")).to_be_visible()
    expect(said(fresh, "find")).to_have_attribute("aria-live", "polite")
    open_tab(fresh, "Check many")
    expect(fresh.get_by_role("button", name="Or a folder: Drop File Here")).to_be_visible()


def test_it_fits_a_phone(fresh: Page, tmp_path: Path) -> None:
    fresh.set_viewport_size(PHONE)
    choose_photo(fresh, "find", paint(tmp_path / "query.png", (200, 30, 30), (96, 72)))
    expect(said(fresh, "find")).to_contain_text("The nearest item is RAM-1")
    fresh.locator("#find-matches button.thumbnail-item").first.click()
    expect(fresh.locator("#find-record")).to_contain_text("The record of RAM-1")
    expect(fresh.locator("#find-record")).to_be_in_viewport()
    fresh.get_by_role("button", name="The same as a table").click()
    wide, seen = fresh.locator("#find-rows .wide").evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert wide <= seen
    for name in ("Find a part", "Count a bin", "Check many", "The store"):
        open_tab(fresh, name)
        assert fresh.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name


def test_the_login_page_says_that_there_are_no_tries_left(browser: Browser, stock: Path) -> None:
    with shown(stock / "parts.store", "open sesame") as url:
        visitor = browser.new_page()
        visitor.set_default_timeout(20_000)
        visitor.goto(url)
        for number in range(BURST + 1):
            visitor.get_by_label("username").fill("me")
            visitor.get_by_label("password").fill(f"sesame {number}")
            with visitor.expect_response("**/login") as answer:
                visitor.get_by_role("button", name="Login").click()
            expected = 429 if number == BURST else 400
            assert answer.value.status == expected
        expect(visitor.get_by_role("alert").first).to_contain_text("too many passwords were tried; wait")
        visitor.close()
