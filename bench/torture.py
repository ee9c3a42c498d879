"""How much the local store withstands (R1–R3, and power cuts): `python -m bench.torture --kills 2000`.

The same programs as the tests under tests/store, in their full form. A loss, a ghost, a wrong answer or an error that is not
of ours ends it with a traceback; what is printed was met and withstood.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from tests.store import test_damage, test_kills, test_power_cuts, test_write_errors
from tests.store.workers import compiled_shim, nursery

from bench.report import Figure, tell
from binsight.store import faiss_store


def kills(count: int, folder: Path) -> list[Figure]:
    found, acknowledged = test_kills.kill_and_compare(folder, kills=count, seed=7)
    return [
        Figure("R1 kills", count, "kill −9", "2000"),
        Figure("R1 operations acknowledged", acknowledged, "operations"),
        Figure("R1 lost + ghosts + wrong pairs", len(found.lost + found.ghosts + found.wrong), "items", "0"),
    ]


def interrupts(count: int, folder: Path) -> list[Figure]:
    cut = test_kills.interrupt(folder, times=count, seed=7)
    return [Figure("R1 interrupted calls on one open store", cut, "calls")]


def write_errors(step: int, folder: Path, shim: Path) -> list[Figure]:
    with nursery(folder, preload=shim) as children:
        runs, met = test_write_errors.try_nth(children, folder, step=step, start=1)
    return [
        Figure("R2 runs with the n-th change refused", runs, "runs"),
        Figure("R2 runs that met it as an error", met, "runs"),
    ]


def damages(count: int, folder: Path) -> list[Figure]:
    faiss_store.SMALL_ROWS, faiss_store.TAIL_ROWS = 200, 400
    samples = []
    for number, (items, compact_at) in enumerate([(80, 0), (400, 200)]):
        for kind in ("closed", "killed"):
            place = folder / f"{number} {kind}"
            place.mkdir()
            samples.append(test_damage.build(place, items=items, compact_at=compact_at, kind=kind))
    rng, outcomes = np.random.default_rng(7), Counter[str]()
    for number in range(count):
        test_damage.mutate_and_look(samples[number % len(samples)], folder, rng, outcomes)
    return [
        Figure("R3 files damaged", count, "stores", "20000"),
        *(Figure(f"R3 … then {name}", outcomes[name], "stores") for name in ("right", "named", "refused")),
        Figure("R3 wrong answers", 0, "answers", "0"),
    ]


def power_cuts(count: int, folder: Path, shim: Path) -> list[Figure]:
    return [
        Figure("power cuts played, nothing acknowledged lost", test_power_cuts.cut(shim, folder, cuts=count, seed=7), "cuts")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--interrupts", type=int, default=10_000)
    parser.add_argument("--fault-step", type=int, default=1)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--cuts", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # healed caches, told thousands of times
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("kills", "interrupts", "faults", "damage", "cuts"):
            (folder / part).mkdir()
        figures += kills(options.kills, folder / "kills")
        figures += interrupts(options.interrupts, folder / "interrupts")
        shim = compiled_shim(folder)
        if shim is not None:
            figures += write_errors(options.fault_step, folder / "faults", shim)
            figures += power_cuts(options.cuts, folder / "cuts", shim)
        figures += damages(options.mutations, folder / "damage")
    tell("torture", figures, as_json=options.json)


if __name__ == "__main__":
    main()
