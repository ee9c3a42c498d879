"""`binsight data …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from binsight.cli.menu import Menu
from binsight.cli.output import print_json, print_table, progress_on_stderr, say
from binsight.data.abid import BUCKET
from binsight.data.fetch import checked_stems, fetch, stems_of_list, stems_of_range
from binsight.data.labelled import LabelledSet, open_labelled
from binsight.data.report import DataReport, look, report
from binsight.data.report_page import check_plots, write_report
from binsight.data.splits import Leak, Split, checked_fractions, leak, make_split, read_split, write_split
from binsight.errors import BadSettings

app = typer.Typer(
    cls=Menu, help="Fetch labelled pictures, split them, and see what is in them.", no_args_is_help=True, rich_markup_mode=None
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A folder in ABID's layout, of count folders or class folders; a manifest (.csv, .jsonl); s3://BUCKET[/PREFIX].",
    ),
]
Counts = Annotated[
    str | None, typer.Option("--counts", metavar="LOW:HIGH", help="Only pictures of so many items, such as 1:5 or 3.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
SHOWN = 20
FAR = 2.0  # percent of all pictures


@app.command("fetch")
def fetch_(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to fill, in ABID's layout.")],
    list_: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Stems one a line, or JSON: [STEM, …] or {COUNT: [STEM, …], …}."),
    ] = None,
    stems: Annotated[str | None, typer.Option("--stems", metavar="A,B", help="Stems, separated by commas.")] = None,
    range_: Annotated[
        str | None, typer.Option("--range", metavar="FIRST:LAST", help="Numbers, both included: 1:100 is 00001 … 00100.")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", metavar="URL", help="A bucket or folder in ABID's layout; buckets are read unsigned.")
    ] = BUCKET,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Bins fetched at a time.")] = 16,
    as_json: AsJson = False,
) -> int:
    """Bring photos and metadata of chosen bins here; what is here and sound is not fetched again.

    A bin that cannot be had is listed with its reason and does not stop the job (exit code 1 at the end).
    """
    if sum(one is not None for one in (list_, stems, range_)) != 1:
        raise BadSettings("want one of --list FILE, --stems A,B and --range FIRST:LAST")
    if list_ is not None:
        wanted = stems_of_list(list_)
    elif stems is not None:
        wanted = checked_stems(one for one in stems.split(",") if one.strip())
    else:
        wanted = stems_of_range(range_ or "")
    with progress_on_stderr("fetching") as progress:
        done = fetch(wanted, out, source=source, workers=workers, progress=progress)
    for refusal in done.refused:
        say(f"refused: {refusal.path}: {refusal.error}")
    for note in done.notes:
        say(f"note: {note.path}: {note.error}")
    if as_json:
        print_json(done.to_json())
    else:
        print(  # noqa: T201, the command's answer
            f"{done.fetched} fetched ({done.fetched_bytes / 1e6:.1f} MB), {done.present} were here, "
            f"{len(done.refused)} refused; {done.took_s:.1f} s into {done.out}"
        )
    return 1 if done.refused else 0


@app.command("split")
def split(
    source: Source,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="The split: path,split,group,count|label.")],
    by: Annotated[
        str,
        typer.Option("--by", metavar="group|random", help="Keep pictures that share products together, or do not (it leaks)."),
    ] = "group",
    fractions: Annotated[
        str, typer.Option("--fractions", metavar="A/B/C", help="Of train/val/test, or of train/test: 60/20/20, 80/20.")
    ] = "60/20/20",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another seed, another split.")] = 0,
    counts: Counts = None,
    as_json: AsJson = False,
) -> int:
    """Share pictures out to train, validation and test, by product group so that no bin is met again.

    Counts (or classes) are spread alike. Pictures that the source has no label for are listed (exit code 1 at the end).
    """
    if by not in ("group", "random"):
        raise BadSettings(f"want --by group or --by random, got {by!r}")
    shares = _fractions(fractions)
    labelled = _only(open_labelled(source), counts)
    made = make_split(labelled, by="group" if by == "group" else "random", fractions=shares, seed=seed)
    found = leak(made, labelled)
    write_split(made, out)
    _tell_refused(labelled)
    if found.is_leaking:
        say(_warning(found))
    far = [name for name, n in _off(made).items() if n > FAR]
    if far:
        say(f"note: {', '.join(far)} differ from the fractions asked for: the largest groups stay whole, and are in train")
    if as_json:
        print_json(_split_json(made, found, out, labelled))
    else:
        total, groups = len(made.rows), {name: len({row.group for row in made.of(name)}) for name in made.sizes}
        rows = [(name, str(n), f"{n / total:.1%}", str(groups[name]), _mean(made, name)) for name, n in made.sizes.items()]
        print_table(
            ("split", "pictures", "share", "groups", "mean count"), rows, right=("pictures", "share", "groups", "mean count")
        )
    return 1 if labelled.refused else 0


@app.command("report")
def report_(
    source: Source,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for report.html, its plots and report.json.")],
    split_file: Annotated[
        Path | None, typer.Option("--split", metavar="FILE", help="Also tell what is in this split, and what it leaks.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", help="Open only so many pictures, chosen at random, for sizes and likeness."),
    ] = None,
    counts: Counts = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Pictures opened at a time.")] = 4,
    as_json: AsJson = False,
) -> int:
    """Say what is in a set: counts, sizes, products, label noise, near-duplicates, and what a split leaks.

    Pictures that cannot be used are listed (exit code 1 at the end).
    """
    check_plots()
    chosen = read_split(split_file, allow_leak=True) if split_file is not None else None
    labelled = _only(open_labelled(source), counts)
    with progress_on_stderr("opening") as progress:
        opened, unreadable = look(labelled, sample=sample, workers=workers, progress=progress)
    told = report(labelled, opened, unreadable, split=chosen)
    page = write_report(told, opened, labelled, out)
    _tell_refused(labelled)
    for refusal in unreadable:
        say(f"refused: {refusal.path}: {refusal.error}")
    if told.split is not None and told.split.leak.is_leaking:
        say(_warning(told.split.leak))
    if as_json:
        print_json(told.to_json() | {"page": str(page)})
    else:
        print_table(("what", "value"), _summary(told, page))
    return 1 if labelled.refused or unreadable else 0


def _summary(told: DataReport, page: Path) -> list[tuple[str, str]]:
    pairs = told.near_duplicates
    rows = [
        ("pictures", f"{told.pictures:,} ({told.kind})"),
        ("groups", f"{told.groups.n:,}, the largest of {told.groups.largest:,}"),
        ("near-duplicates", f"{len(pairs):,} pairs"),
        ("label noise", f"{len(told.notes) + sum(pair.contradicts for pair in pairs):,}"),
        ("refused", f"{len(told.refused) + len(told.unreadable):,}"),
        ("page", str(page)),
    ]
    if told.products is not None:
        rows.insert(1, ("products", f"{told.products.distinct:,}"))
    return rows


def _off(made: Split) -> dict[str, float]:
    """How far each split is from the share asked for, in percent of all pictures."""
    pairs = zip(made.sizes.items(), made.fractions, strict=True)
    return {name: abs(100 * n / len(made.rows) - asked) for (name, n), asked in pairs}


def _split_json(made: Split, found: Leak, out: Path, labelled: LabelledSet) -> dict[str, object]:
    return {
        "out": str(out),
        "by": made.by,
        "fractions": list(made.fractions),
        "seed": made.seed,
        "sizes": made.sizes,
        "groups": {name: len({row.group for row in made.of(name)}) for name in made.sizes},
        "leak": {
            "held_out": found.held_out,
            "group_share": found.group_share,
            "product_share": found.product_share,
            "sister_share": found.sister_share,
        },
        "refused": [{"path": one.path, "error": one.error} for one in labelled.refused],
        "notes": [{"path": one.path, "note": one.error} for one in labelled.notes],
    }


def _warning(found: Leak) -> str:
    return (
        f"warning: this split leaks: of {found.held_out} val and test pictures, {found.group_share:.1%} are of a product group "
        f"that is in train, {found.product_share:.1%} share a product with a train picture, and {found.sister_share:.1%} are a "
        "second shot of one; figures measured on it are too good (use --by group)"
    )


def _tell_refused(labelled: LabelledSet) -> None:
    for one in labelled.refused:
        say(f"refused: {one.path}: {one.error}")
    for one in labelled.notes[:SHOWN]:
        say(f"note: {one.path}: {one.error}")
    if len(labelled.notes) > SHOWN:
        say(f"note: … and {len(labelled.notes) - SHOWN:,} more, named in the data report")


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return checked_fractions([float(part) for part in text.split("/")])[1]
    except ValueError as error:
        raise BadSettings(f"want --fractions such as 60/20/20 (train/val/test) or 80/20 (train/test), got {text!r}") from error


def _only(labelled: LabelledSet, counts: str | None) -> LabelledSet:
    if counts is None:
        return labelled
    low, _, high = counts.partition(":")
    are_numbers = all(one.isascii() and one.isdecimal() and len(one) < 10 for one in (low, high or low))
    if not are_numbers or int(low) > int(high or low):
        raise BadSettings(f"want --counts LOW:HIGH such as 1:5, got {counts[:40]!r}")
    chosen = labelled.only(int(low), int(high or low))
    if not chosen.pictures:
        raise BadSettings(f"no picture of {labelled.root} has a count in {counts}")
    return chosen


def _mean(made: Split, name: str) -> str:
    counts = [row.count for row in made.of(name) if row.count is not None]
    return f"{sum(counts) / len(counts):.2f}" if counts else "–"
