"""How a bench tells its figures: a table for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: what, the value and its unit, what it should reach, and the rounds behind it."""

    name: str
    value: float
    unit: str
    reach: str = ""
    rounds: list[float] = field(default_factory=list)

    @classmethod
    def median(cls, name: str, rounds: Sequence[float], unit: str, reach: str = "") -> Figure:
        return cls(name, float(np.median(rounds)), unit, reach, [float(value) for value in rounds])

    @property
    def spread(self) -> str:
        return f"{min(self.rounds):.4g} … {max(self.rounds):.4g}" if len(self.rounds) > 1 else ""


def tell(bench: str, figures: Sequence[Figure], *, as_json: bool = False, **about: Any) -> None:
    """Print the figures, and keep them as JSON under bench-out/."""
    document = {"bench": bench, **about, "figures": [asdict(figure) for figure in figures]}
    out = Path("bench-out")
    out.mkdir(exist_ok=True)
    (out / f"{bench}.json").write_text(json.dumps(document, indent=2) + "\n")
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        print()
        return
    print(f"## {bench}  " + "  ".join(f"{name}={value}" for name, value in about.items()))
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        spread = f"  ({figure.spread})" if figure.spread else ""
        reach = f"  reach {figure.reach}" if figure.reach else ""
        print(f"{figure.name:<{width}}  {figure.value:>10.4g} {figure.unit}{spread}{reach}")
