"""Plots of a model's figures, as PNG. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from binsight.errors import MissingExtra
from binsight.evaluate import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAIN, _OTHER, _SOFT = "#2a4d8f", "#e2b93b", "#5f6873"
_MOST_NUMBERS = 20  # classes up to which every cell of a confusion matrix shows its number


def check_installed() -> None:
    """Raise MissingExtra when matplotlib is not there."""
    _figure(1, 1)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str], path: Path, *, title: str) -> Path:
    """True classes as rows, answers as columns; the colour is the share of the row, the number the pictures."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.5 * len(names) + 2)
    figure = _figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= _MOST_NUMBERS:
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return _saved(figure, axes, path, title=title, x="answered", y="true")


def bars(
    names: Sequence[str], values: Sequence[float | None], path: Path, *, title: str, label: str, line: tuple[str, float] | None
) -> Path:
    """A bar a class; a class without pictures has none. line: a value to compare with, and its name."""
    figure = _figure(max(5.0, 0.4 * len(names) + 2), 3.6)
    axes = figure.add_subplot()
    axes.bar(range(len(names)), [0.0 if value is None else value for value in values], color=_MAIN)
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names), default=0) > 3 else 0)
    if line is not None:
        axes.axhline(line[1], color=_OTHER, linewidth=2, label=line[0])
        axes.legend(frameon=False)
    return _saved(figure, axes, path, title=title, x="", y=label)


def calibration(rows: Sequence[Figures], path: Path, *, title: str) -> Path:
    """Accuracy against confidence; on the diagonal, answers are right as often as they claim. Dots grow with their pictures."""
    figure = _figure(4.6, 4.4)
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color=_SOFT, linewidth=1, linestyle="--")
    most = max(row["n"] for row in rows)
    sizes = [20 + 180 * row["n"] / most for row in rows]
    axes.scatter([row["confidence"] for row in rows], [row["accuracy"] for row in rows], s=sizes, color=_MAIN)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return _saved(figure, axes, path, title=title, x="confidence", y="accuracy")


def scores(found: Figures, path: Path, *, title: str) -> Path:
    """The two score distributions of `score_distributions`, each of area one."""
    figure = _figure(6.4, 3.6)
    axes = figure.add_subplot()
    shown: list[float] = []
    for name, colour in (("different", _OTHER), ("same", _MAIN)):
        histogram = np.asarray(found[name]["histogram"], np.float64)
        if found[name]["n"]:
            edges = np.linspace(-1, 1, len(histogram) + 1)
            density = histogram / histogram.sum() / (edges[1] - edges[0])
            axes.stairs(density, edges, fill=True, alpha=0.6, color=colour, label=name)
            shown += [found[name]["quantiles"][share] for share in ("0.01", "0.99")]
    if shown:
        axes.set_xlim(max(-1.0, min(shown) - 0.05), min(1.0, max(shown) + 0.05))
    axes.legend(frameon=False)
    return _saved(figure, axes, path, title=title, x="score (cosine)", y="density")


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", extra="train") from error
    return Figure(figsize=(width, height), layout="constrained")


def _saved(figure: Figure, axes: Axes, path: Path, *, title: str, x: str, y: str) -> Path:
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    figure.savefig(path, dpi=120)
    return path
