"""A data report as a folder: a web page, its plots as PNG, and the figures as JSON."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from binsight.data.files import make_folder, write_atomically
from binsight.data.labelled import LabelledSet
from binsight.data.report import QUANTILES, DataReport, NearPair, Opened, SplitFacts
from binsight.data.source import Refusal
from binsight.errors import BadImage, MissingExtra
from binsight.images import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, FIGURES = "report.html", "report.json"
SHOWN_PAIRS, SHOWN_ROWS = 8, 50
COLOURS = (BLUE := "#2f6db5", "#e08a2e", "#4c9a5b")
MOST_TICKS = 24


def check_plots() -> None:
    """Raise MissingExtra when no plots can be made, before anything is measured."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtra("matplotlib", extra="train") from error


def write_report(told: DataReport, opened: Sequence[Opened], labelled: LabelledSet, out: Path) -> Path:
    """Write the page, plots and figures into a folder, made when it is not there, and give the page's path.

    Raises MissingExtra without matplotlib, CannotBeDone when the system refuses a write.
    """
    check_plots()
    make_folder(out)
    plots = _plots(told, opened, labelled)
    for name, data in plots.items():
        write_atomically(out / f"{name}.png", data)
    write_atomically(out / FIGURES, json.dumps(told.to_json(), ensure_ascii=False, indent=2).encode())
    write_atomically(out / PAGE, page(told, list(plots)).encode())
    return out / PAGE


def page(told: DataReport, plots: Iterable[str] = ()) -> str:
    """The web page; `plots` are names of PNG files beside it."""
    shown = "".join(f'<figure><img src="{_safe(name)}.png" alt="{_safe(name)}"></figure>' for name in plots)
    parts = [
        _table("The set", ("what", "value"), _facts(told)),
        _table("Sizes", ("", *(f"{one}%" for one in QUANTILES)), _sizes(told)),
        _table("Resolutions", ("width", "height", "pictures"), told.resolutions),
        _table("Counts", ("items", "pictures", "share"), _shares(told.counts)),
        _table("Classes", ("class", "pictures", "share"), _shares(told.labels)),
        _table("Most common products", ("product", "pictures"), told.products.most_common if told.products else ()),
        _split_part(told.split),
        _table("Near-duplicates", ("one", "other", "bits", "what"), [_pair_row(pair) for pair in told.near_duplicates]),
        _refusals("Label noise: taken, but something contradicts; and folders without a picture", told.notes),
        _refusals("Refused", told.refused),
        _refusals("Cannot be read", told.unreadable),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>binsight data report</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>What is in {_safe(told.source)}</h1>\n"
        f'<div class="plots">{shown}</div>\n{"".join(parts)}</body>\n</html>\n'
    )


STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}"
    "td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "td{overflow-wrap:anywhere}.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}img{max-width:100%}"
    ".warning{background:#fff3cd;padding:.6rem 1rem;border-left:4px solid #d39e00}"
)


def _facts(told: DataReport) -> list[tuple[str, object]]:
    pairs = told.near_duplicates
    rows: list[tuple[str, object]] = [
        ("kind", told.kind),
        ("pictures", f"{told.pictures:,}"),
        ("opened for this report", f"{told.opened:,}"),
        ("groups (joined by shared products)", f"{told.groups.n:,}, the largest of {told.groups.largest:,} pictures"),
        ("near-duplicates", f"{len(pairs):,} pairs, {sum(pair.is_same_file for pair in pairs):,} of them the same file"),
        ("label noise", f"{len(told.notes):,} notes, {sum(pair.contradicts for pair in pairs):,} alike with other labels"),
        ("refused", f"{len(told.refused):,} by their labels, {len(told.unreadable):,} cannot be read"),
    ]
    if told.products is not None:
        one = told.products
        rows.append(("products", f"{one.distinct:,}, of which {one.in_one_picture:,} are in one picture only"))
        rows.append(
            ("products in a picture", f"{one.mean_per_picture:.2f} on average; {one.pictures_without:,} pictures without")
        )
    if told.sisters.pairs:
        two = told.sisters
        told_of = f"{two.pairs:,} pairs, {two.pictures:,} pictures; counts are the same in {two.same_count:,} pairs"
        rows.append(("sister shots (next number, a product shared)", f"{told_of}, differ by one in {two.differ_by_one:,}"))
    return rows


def _sizes(told: DataReport) -> list[tuple[object, ...]]:
    named = (("width, px", told.width_px), ("height, px", told.height_px), ("file, bytes", told.file_bytes))
    return [(name, *(f"{value:,.0f}" for value in values)) for name, values in named if values]


def _shares(found: Mapping[int, int] | Mapping[str, int]) -> list[tuple[object, ...]]:
    total = sum(found.values())
    return [(name, f"{n:,}", f"{n / total:.1%}") for name, n in found.items()]


def _split_part(split: SplitFacts | None) -> str:
    if split is None:
        return ""
    found = split.leak
    warning = "This split leaks: a model meets bins in the test that it was trained on." if found.is_leaking else ""
    total = sum(split.sizes.values())
    rows: list[tuple[str, object]] = [(name, f"{n:,} ({n / total:.1%})") for name, n in split.sizes.items()]
    rows += [
        ("groups in more than one split", f"{split.crossing:,}"),
        ("val and test pictures whose group is in train", f"{found.group_share:.1%}"),
        ("… that share a product with train", f"{found.product_share:.1%}"),
        ("… whose sister shot is in train", f"{found.sister_share:.1%}"),
        ("near-duplicates, one in train, one not", f"{split.near_crossing:,} pairs"),
    ]
    names = list(split.sizes)
    counts = sorted({count for some in split.counts.values() for count in some})
    labels = sorted({label for some in split.labels.values() for label in some})
    by_count = [(count, *(split.counts[name].get(count, 0) for name in names)) for count in counts]
    by_label = [(label, *(split.labels[name].get(label, 0) for name in names)) for label in labels]
    return (
        _table("The split", ("what", "value"), rows)
        + (f'<p class="warning">{warning}</p>' if warning else "")
        + _table("Counts by split", ("items", *names), by_count)
        + _table("Classes by split", ("class", *names), by_label)
    )


def _pair_row(pair: NearPair) -> tuple[object, ...]:
    words = [
        "the same file" if pair.is_same_file else "",
        "sister shots" if pair.are_sisters else "",
        "other labels" if pair.contradicts else "",
    ]
    return pair.a, pair.b, pair.bits, ", ".join(word for word in words if word)


def _refusals(title: str, found: Sequence[Refusal]) -> str:
    return _table(title, ("picture", "why"), [(one.path, one.error) for one in found])


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{_safe(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>\n" for row in rows[:SHOWN_ROWS])
    more = f"<p>… and {len(rows) - SHOWN_ROWS:,} more, in {FIGURES}</p>" if len(rows) > SHOWN_ROWS else ""
    return f"<h2>{_safe(title)}</h2>\n<table><tr>{head}</tr>\n{body}</table>\n{more}"


def _safe(text: object) -> str:
    return html.escape(str(text), quote=True)


def _plots(told: DataReport, opened: Sequence[Opened], labelled: LabelledSet) -> dict[str, bytes]:
    """PNG files by name; only those that there is something to show for."""
    plots: dict[str, bytes] = {}
    if told.counts:
        by_count = told.split.counts if told.split else {"all": told.counts}
        plots["counts"] = _drawn(lambda axes: _counts(axes, by_count))
    if told.labels:
        by_label = told.split.labels if told.split else {"all": told.labels}
        plots["classes"] = _drawn(lambda axes: _classes(axes, by_label))
    if told.products is not None:
        of = told.products.pictures_of
        plots["products"] = _drawn(lambda axes: _log_dots(axes, of, "pictures that show a product", "products"))
    if told.groups.largest > 1:
        plots["groups"] = _drawn(lambda axes: _log_dots(axes, told.groups.sizes, "pictures in a group", "groups"))
    if opened:
        plots["resolutions"] = _drawn(lambda axes: _resolutions(axes, opened))
        plots["file_sizes"] = _drawn(lambda axes: _file_sizes(axes, opened))
    if told.near_duplicates:
        plots["near_duplicates"] = _pairs(told.near_duplicates[:SHOWN_PAIRS], labelled)
    return plots


def _drawn(draw: Callable[[Axes], None]) -> bytes:
    from matplotlib.figure import Figure  # no pyplot: it holds state, and looks for a screen

    figure = Figure(figsize=(5.6, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _counts(axes: Axes, by_split: Mapping[str, Mapping[int, int]]) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = sorted({count for held in by_split.values() for count in held})
    _stacked(axes, counts, {split: [held.get(count, 0) for count in counts] for split, held in by_split.items()})
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="items", ylabel="pictures")


def _classes(axes: Axes, by_split: Mapping[str, Mapping[str, int]]) -> None:
    labels = sorted({label for held in by_split.values() for label in held})
    _stacked(axes, range(len(labels)), {split: [held.get(label, 0) for label in labels] for split, held in by_split.items()})
    shown = range(0, len(labels), max(1, len(labels) // MOST_TICKS))
    axes.set_xticks(shown, [_plain(labels[place]) for place in shown], rotation=60)
    axes.set(ylabel="pictures")


def _stacked(axes: Axes, places: Sequence[int], heights_by_split: Mapping[str, Sequence[int]]) -> None:
    bottom = [0] * len(places)
    for colour, (split, heights) in zip(COLOURS, heights_by_split.items(), strict=False):
        axes.bar(places, heights, bottom=bottom, color=colour, label=split)
        bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
    if len(heights_by_split) > 1:
        axes.legend(frameon=False, ncols=len(heights_by_split), loc="lower right", bbox_to_anchor=(1, 1))


def _log_dots(axes: Axes, found: Mapping[int, int], across: str, up: str) -> None:
    axes.loglog(list(found), list(found.values()), "o", color=BLUE)
    axes.set(xlabel=across, ylabel=up)


def _resolutions(axes: Axes, opened: Sequence[Opened]) -> None:
    axes.plot([one.width_px for one in opened], [one.height_px for one in opened], "o", color=BLUE, alpha=0.3, markersize=3)
    axes.set(xlabel="width, px", ylabel="height, px")


def _file_sizes(axes: Axes, opened: Sequence[Opened]) -> None:
    axes.hist([one.file_bytes / 1000 for one in opened], bins=40, color=BLUE)
    axes.set(xlabel="file, kB", ylabel="pictures")


def _pairs(pairs: Sequence[NearPair], labelled: LabelledSet) -> bytes:
    """The pairs side by side, with what is known of each picture below it."""
    from matplotlib.figure import Figure

    known = {picture.uri: picture for picture in labelled.pictures}
    figure = Figure(figsize=(8, 2 * ((len(pairs) + 1) // 2)), dpi=110, layout="constrained")
    grid = figure.subplots((len(pairs) + 1) // 2, 4, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, uri in zip(grid.flat, (uri for pair in pairs for uri in (pair.a, pair.b)), strict=False):
        picture = known[uri]
        try:
            axes.imshow(load(labelled.read(uri)))
        except BadImage:
            continue
        words = (f"{picture.count} items" if picture.count is not None else "", picture.label or "")
        axes.set_title(_plain(f"{uri.rsplit('/', 1)[-1][:24]}\n{' '.join(words).strip()}"), fontsize=7)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _plain(name: object) -> str:
    """No mathematics, and only letters that the plots' font has."""
    return str(name).replace("$", r"\$").encode("latin-1", "replace").decode("latin-1")[:40]
