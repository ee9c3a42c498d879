"""`binsight tune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from binsight.cli.output import print_json, print_table, say
from binsight.errors import BadSettings

_SHOWN = 15  # trials in the table; the CSV holds all


def tune(
    data: Annotated[str, typer.Option("--data", metavar="SOURCE", help="Labelled pictures: folder, manifest, s3://…")] = "",
    split: Annotated[Path | None, typer.Option("--split", metavar="FILE", help="CSV of `binsight data split`.")] = None,
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="The study to begin, go on with, or join.")] = "",
    storage: Annotated[
        str,
        typer.Option(
            "--storage", metavar="FILE_OR_URL", help="Where it lies: a journal file, sqlite:///FILE or postgresql://…"
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Results: best.json, trials.csv, plots, the best model.")
    ] = None,
    space: Annotated[
        str, typer.Option("--space", metavar="SPACE", help="What is searched: default, wide, or a .toml or .json file.")
    ] = "default",
    trials: Annotated[
        int, typer.Option("--trials", metavar="N", min=1, help="Finished trials of the study as a whole, over all processes.")
    ] = 20,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0, help="Begin no trial after S seconds.")] = 0.0,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Processes on this machine.")] = 1,
    pruner: Annotated[str, typer.Option("--pruner", metavar="KIND", help="median, halving or none.")] = "median",
    backbone: Annotated[str, typer.Option("--backbone", metavar="NAME", help="As of `binsight train`.")] = "",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the search and of every trial.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Fix a setting of `train`: --set freeze=backbone.")
    ] = None,
    show_space: Annotated[bool, typer.Option("--show-space", help="Print the space as TOML, to change it, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all trials as one JSON document.")] = False,
) -> int:
    """Search for the settings that train the best model.

    Any number of processes and machines may join one study through its storage. Killed at any time, the same command goes
    on: --trials counts what is finished, and trials whose process died are run again. `train --from-study` uses the best.
    """
    from binsight.train import tune_space

    if show_space:
        print(tune_space.space_toml(tune_space.read_space(space)), end="")  # noqa: T201, the command's answer
        return 0
    wanted = {"--data": data, "--split": split, "--study": study, "--storage": storage, "--out": out}
    if missing := [name for name, value in wanted.items() if not value]:
        raise BadSettings(f"tune wants {', '.join(missing)} too; see `binsight tune --help`")
    from binsight.train import tune as search
    from binsight.train import tune_report

    values = _values(settings or []) | {"data": data, "split": split, "out": out, "seed": seed}
    if backbone:
        values["backbone"] = backbone
    job = search.make_job(
        values, study=study, storage=storage, space=space, trials=trials, pruner=pruner, workers=workers, timeout_s=timeout
    )
    tune_report.check_installed()
    shared = search.tune(job, say=say)
    report = tune_report.summary(shared, storage, job.out)
    files = tune_report.write_results(shared, report, job.out)
    if as_json:
        print_json(report | {"files": [str(file) for file in files]})
    else:
        _print(report)
    say(f"written: {len(files)} files into {job.out}")
    return 0


def _values(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE settings; the record that takes them reads numbers and yes or no. Raises BadSettings."""
    found: dict[str, Any] = {}
    for one in given:
        name, mark, value = one.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not mark or not name:
            raise BadSettings(f"--set: want NAME=VALUE, got {one!r}")
        if name in ("data", "split", "out", "seed", "backbone"):
            raise BadSettings(f"--set {name}: has an option of its own, --{name}")
        if name in found:
            raise BadSettings(f"--set {name}: given twice")
        found[name] = value
    return found


def _print(report: Mapping[str, Any]) -> None:
    best, rows = report["best"], report["rows"]
    ranked = sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0), row["number"]))[:_SHOWN]
    names = list(rows[0]["params"]) if rows else []
    columns = ["trial", "state", "score", "accuracy", "rmse", "recall@1", *names]
    cells = [
        [
            str(row["number"]), row["state"], _told(row["score"]), _told(row["figures"].get("accuracy")),
            _told(row["figures"].get("rmse")), _told(row["figures"].get("recall@1")),
            *(_told(row["params"].get(name)) for name in names),
        ]
        for row in ranked
    ]  # fmt: skip
    print_table(columns, cells, right=[name for name in columns if name != "state"])
    counted = ", ".join(f"{count} {state}" for state, count in report["trials"].items() if count)
    print(f"\n{len(rows)} trials: {counted}")  # noqa: T201, the command's answer
    if report["importances"]:
        print("importances: " + ", ".join(f"{name} {share:.0%}" for name, share in report["importances"].items()))  # noqa: T201
    if best:
        print(f"best: trial {best['trial']}; binsight train --from-study '{report['storage']}#{report['study']}' …")  # noqa: T201


def _told(value: Any) -> str:  # a figure or a setting
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
