"""An embedding that looks at a picture at two scales, and at where in it things lie.

A backbone's pooled last features say what kind of thing a picture shows, wherever it lies, and little of which one. Its
middle layers keep print, tape and texture, and a grid keeps their places: two shots of one bin agree in those. The
embedding is two halves of unit length: the coarse one from the last feature map, the fine one from two middle levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from binsight.errors import BadSettings

FINE_STRIDES = (8, 16)  # pixels of the picture to one place of the two middle feature maps
FINE_GRID, COARSE_GRID = 4, 3  # cells a side
FINE_CELL, COARSE_CELL = 64, 128  # numbers that a cell is brought down to


class Level(NamedTuple):
    """Cells of one feature map: `grid`² of them of `channels` each, which a cell layer brings down to `cell`."""

    grid: int
    channels: int
    cell: int

    @property
    def size(self) -> int:
        return self.grid * self.grid * self.channels


@final
class PyramidReader:
    """Takes the cells out of a timm backbone in the same pass as its pooled features; it has no weights of its own."""

    def __init__(self, backbone: nn.Module, pooled: int) -> None:
        """pooled: how many pooled features there are. Raises BadSettings for a backbone without levels of those strides."""
        told: Any = getattr(backbone, "feature_info", None) or ()
        found = [(place, info["num_chs"]) for place, info in enumerate(told) if info.get("reduction") in FINE_STRIDES]
        if len(found) != len(FINE_STRIDES) or not hasattr(backbone, "forward_intermediates"):
            raise BadSettings(
                f"a pyramid takes one feature map of each stride in {FINE_STRIDES}, and {type(backbone).__name__} has "
                f"{len(found)}; take --pooling mean"
            )
        self._places = [place for place, _ in found]
        fine = [Level(FINE_GRID, channels, min(FINE_CELL, channels)) for _, channels in found]
        self.levels = (*fine, Level(COARSE_GRID, pooled, min(COARSE_CELL, pooled)))
        self.size = sum(level.size for level in self.levels)

    def __call__(self, backbone: Any, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised planes (n, 3, h, w) → pooled features (n, pooled) and cells (n, size), level after level, both float32.

        The last map's cells are signed square roots of means (Hellinger's kernel), so that one strong response does not
        outweigh all others.
        """
        last, middle = backbone.forward_intermediates(planes, indices=self._places)
        pooled: Tensor = backbone.forward_head(last, pre_logits=True).float()
        cells = [_cells(features.float(), FINE_GRID) for features in middle]
        coarse = _cells(last.float(), COARSE_GRID)
        return pooled, torch.cat([*cells, torch.sign(coarse) * torch.sqrt(coarse.abs())], dim=1)


@final
class PyramidHead(nn.Module):
    """Cells → an embedding of `dim`: half from the fine levels, half from the coarse one, each of length √½.

    A layer that all cells of a level share brings each of them down; then one layer a half sees all cells.
    """

    def __init__(self, levels: tuple[Level, ...], dim: int) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise BadSettings(f"want a pyramid's embedding to have an even number of dimensions, got {dim}")
        self.levels = levels
        self.cells = nn.ModuleList(nn.Linear(level.channels, level.cell) for level in levels)
        self.fine = nn.Linear(sum(level.grid**2 * level.cell for level in levels[:-1]), dim // 2)
        self.coarse = nn.Linear(levels[-1].grid ** 2 * levels[-1].cell, dim // 2)
        for layer in (*self.cells, self.fine, self.coarse):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, cells: Tensor) -> Tensor:
        """cells: float32 (n, size) as PyramidReader gives them; (n, dim) of unit length."""
        *fine, coarse = self.brought_down(cells)
        halves = (self.fine(torch.cat(fine, dim=1)), self.coarse(coarse))
        joined: Tensor = torch.cat([functional.normalize(half) for half in halves], dim=1) * 0.5**0.5
        return joined

    def brought_down(self, cells: Tensor) -> list[Tensor]:
        """Of each level (n, grid² · cell)."""
        parts = torch.split(cells, [level.size for level in self.levels], dim=1)
        # Sizes that tracing makes constants are those of the network; that of the batch stays open.
        shaped = [part.reshape(-1, level.grid**2, level.channels) for part, level in zip(parts, self.levels, strict=True)]
        return [layer(part).flatten(1) for layer, part in zip(self.cells, shaped, strict=True)]


def _cells(features: Tensor, grid: int) -> Tensor:
    """Means of a grid over a feature map (n, c, h, w) → (n, grid² · c), cell after cell."""
    return functional.adaptive_avg_pool2d(features, grid).permute(0, 2, 3, 1).flatten(1)
