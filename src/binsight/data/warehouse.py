"""A made-up warehouse: bins of overlapping parts behind tape, catalogue photos, and the truth about both.

Every picture follows from a seed and is drawn by numpy and Pillow alone. A bin's count is the number of things drawn, and each
of them is visible by at least LEAST_VISIBLE of its outline, the tape (which one sees through) aside.

>>> parts = catalogue(seed=0)
>>> bin_ = fill_bins(parts, 3, seed=0)[2]
>>> photo = bin_photo(bin_, np.random.default_rng(7))
>>> len(photo.items) == bin_.count and min(photo.visible, default=1.0) >= LEAST_VISIBLE
True
"""

from __future__ import annotations

import csv
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from binsight.data.parts import Part, catalogue, sprite_of
from binsight.data.photo import Bytes, Field, Light, Pose, Stage, camera, colour_of, laid, light, seen, snap, swept
from binsight.errors import BadSettings

MAX_COUNT = 9
LEAST_VISIBLE = 0.4
SIZES_PX = range(96, 1025)

Pod: TypeAlias = Literal["yellow fabric", "grey fabric", "black fabric", "yellow plastic", "blue plastic"]
_POD_COLOURS: dict[Pod, str] = {
    "yellow fabric": "#cdb956",
    "grey fabric": "#8e9298",
    "black fabric": "#565962",
    "yellow plastic": "#e3b722",
    "blue plastic": "#3f74bd",
}

_STAGE = 1.16  # the stage is this much larger than the picture, so that the camera may move
_GRID = 96  # points a side of the grid on which things are laid out
_ROOM, _STIRRED_ROOM = 0.58, 0.52  # visible share kept on that coarse grid, laid out and stirred; finer drawing loses a little
_LEFT, _RIGHT, _CEILING, _FLOOR, _FRONT = 0.12, 0.88, 0.18, 0.765, 0.85  # the inside of a bin, in shares of the stage


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin: which parts, how many of each, and where everything lies (all of that from `seed`)."""

    id: str
    contents: tuple[tuple[Part, int], ...]
    pod: Pod
    shelf: str
    seed: int

    def __post_init__(self) -> None:
        if any(quantity < 1 for _, quantity in self.contents) or self.count > MAX_COUNT:
            raise BadSettings(
                f"want 0 to {MAX_COUNT} items in a bin, at least one of each part; {self.id} has {self.quantities}"
            )

    @property
    def quantities(self) -> tuple[int, ...]:
        return tuple(quantity for _, quantity in self.contents)

    @property
    def count(self) -> int:
        """How many items lie in the bin."""
        return sum(self.quantities)

    @property
    def price(self) -> float:
        """What the contents are worth."""
        return round(sum(part.price * quantity for part, quantity in self.contents), 2)

    @property
    def items(self) -> tuple[Part, ...]:
        """One part for every item."""
        return tuple(part for part, quantity in self.contents for _ in range(quantity))


@dataclass(frozen=True, slots=True)
class BinPhoto:
    """A picture of a bin and what is true of it.

    items: what was drawn, back to front. owner: uint8 (size, size), 0 the bin itself, i + 1 where items[i] is seen.
    visible: the share of each item's outline that is seen.
    """

    image: Image.Image
    items: tuple[Part, ...]
    owner: Bytes
    visible: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item lies in its bin; x, y and scale (half its size) in shares of the stage's side."""

    part: Part
    x: float
    y: float
    scale: float
    angle: float
    tilt: float
    lean: float

    def pose(self, side_px: float) -> Pose:
        return Pose(self.x * side_px, self.y * side_px, self.scale * side_px, self.angle, self.tilt, self.lean)


# What is in the bins


_COUNT_SHARES = np.array([0.05, 0.12, 0.14, 0.14, 0.13, 0.12, 0.10, 0.08, 0.07, 0.05])


def fill_bins(parts: Sequence[Part], n: int, *, seed: int = 0) -> tuple[Bin, ...]:
    """n bins with 0 to 9 items each, of one to three kinds of parts."""
    rng = np.random.default_rng([seed, 2])
    return tuple(_filled(f"BIN-{i + 1:04d}", parts, rng) for i in range(n))


def _filled(bin_id: str, parts: Sequence[Part], rng: np.random.Generator) -> Bin:
    count = int(rng.choice(MAX_COUNT + 1, p=_COUNT_SHARES))
    kinds = min(count, 1 + int(rng.choice(3, p=[0.35, 0.4, 0.25])))
    chosen = [parts[int(i)] for i in rng.choice(len(parts), size=kinds, replace=False)]
    more = rng.multinomial(count - kinds, [1 / kinds] * kinds).tolist() if kinds else []
    contents = tuple((part, 1 + extra) for part, extra in zip(chosen, more, strict=True))
    pod = get_args(Pod)[int(rng.choice(5, p=[0.34, 0.26, 0.16, 0.12, 0.12]))]
    shelf = f"{rng.integers(1, 7)}{'ABCDEFGH'[rng.integers(8)]}"
    return Bin(bin_id, contents, pod, shelf, int(rng.integers(2**32)))


# Where it lies


@lru_cache(maxsize=512)  # a pure function of a frozen record; all views of a bin share it
def layout(bin_: Bin) -> tuple[Place, ...]:
    """Where the items of a bin lie, back to front: piled up from the floor, none hidden too far."""
    rng = np.random.default_rng([bin_.seed, 3])
    items = bin_.items
    order = [items[int(i)] for i in rng.permutation(len(items))]
    scale = rng.uniform(0.2, 0.245) * (1.0 - 0.028 * max(0, len(items) - 3))
    while (places := _piled(order, scale, rng)) is None:
        scale *= 0.93  # ends: things small enough lie side by side
    return places


def _piled(items: Sequence[Part], scale: float, rng: np.random.Generator) -> tuple[Place, ...] | None:
    pile = _Pile(_ROOM)
    places: list[Place] = []
    for i, part in enumerate(items):
        depth = (i + rng.uniform(0.2, 0.8)) / len(items)  # 0 at the back wall … 1 at the front
        floor = _FLOOR - 0.03 + depth * (_FRONT - _FLOOR + 0.02)
        tries = (_thrown(part, scale * (0.92 + 0.12 * depth), rng) for _ in range(12))
        found = [place for place in (pile.lowest(t, floor) for t in tries) if place is not None]
        if not found:
            return None
        best = max(found, key=lambda place: place.y)
        pile.put(best)
        places.append(best)
    return tuple(places)


def _thrown(part: Part, scale: float, rng: np.random.Generator) -> Place:
    upright = rng.random() < 0.5
    angle = rng.choice([0, 0, 90, 180, 270]) + rng.normal(0, 10) if upright else rng.uniform(0, 360)
    return Place(
        part,
        x=float(rng.uniform(_LEFT + 0.04, _RIGHT - 0.04)),
        y=0.5,
        scale=scale * (0.3 + 0.7 * part.size),
        angle=float(angle),
        tilt=float(rng.uniform(0.05, 0.62)),
        lean=float(rng.uniform(50, 130)),
    )


class _Pile:
    """What covers what, on a coarse grid."""

    def __init__(self, room: float) -> None:
        self.room = room
        self.owner = np.zeros((_GRID, _GRID), np.int64)  # 0 nothing, i + 1 the i-th thing
        self.areas: list[int] = []
        self.seen: list[int] = []

    def lowest(self, place: Place, floor: float) -> Place | None:
        """The place moved to where it rests: the lowest height at which nothing is hidden too far, or None."""
        mask, left, whole_top = _outline(place)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows) or left + columns[0] < _LEFT * _GRID or left + columns[-1] > _RIGHT * _GRID:
            return None
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        left += int(columns[0])
        height, width = mask.shape
        for top in range(round(floor * _GRID) - height, round(_CEILING * _GRID), -1):
            if self._fits(mask, self.owner[top : top + height, left : left + width]):
                return replace(place, y=place.y + (top - int(rows[0]) - whole_top) / _GRID)
        return None

    def _fits(self, mask: NDArray[np.bool_], under: NDArray[np.int64]) -> bool:
        hidden = np.bincount(under[mask], minlength=len(self.areas) + 1)[1:]
        return all(s - h >= self.room * a for s, h, a in zip(self.seen, hidden, self.areas, strict=True))

    def put(self, place: Place) -> bool:
        """Lay it down; whether everything is still visible enough."""
        mask, left, top = _outline(place)
        x0, y0 = max(left, 0), max(top, 0)
        mask = mask[y0 - top : _GRID - top, x0 - left : _GRID - left]
        window = self.owner[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
        fits = self._fits(mask, window)
        hidden = np.bincount(window[mask], minlength=len(self.areas) + 1)[1:]
        self.seen = [s - int(h) for s, h in zip(self.seen, hidden, strict=True)]
        window[mask] = len(self.areas) + 1
        area = int(np.count_nonzero(mask))
        self.areas.append(area)
        self.seen.append(area)
        return fits


def _outline(place: Place) -> tuple[NDArray[np.bool_], int, int]:
    """Which points of the grid an item covers: a mask, and the column and row of its top left corner."""
    sprite, pose = sprite_of(place.part), place.pose(_GRID)
    step = pose.side(sprite.thickness)
    patch = laid(sprite.outline, pose, margin_px=math.ceil(math.hypot(*step)))
    return swept(np.asarray(patch.image, np.float32), step) > 127, patch.left, patch.top


def _stirred(places: Sequence[Place], rng: np.random.Generator) -> tuple[Place, ...]:
    """The same pile, everything moved and turned a little, as between two visits."""
    for strength in (1.0, 0.6, 0.3):
        moves = rng.normal(0, strength, (len(places), 3))
        moved = tuple(
            replace(p, x=p.x + 0.009 * dx, y=p.y + 0.006 * dy, angle=p.angle + 4 * turn)
            for p, (dx, dy, turn) in zip(places, moves.tolist(), strict=True)
        )
        pile = _Pile(_STIRRED_ROOM)
        if all(pile.put(place) for place in moved):
            return moved
    return tuple(places)


# How it is photographed


def catalogue_photo(part: Part, rng: np.random.Generator, *, size_px: int = 256) -> Image.Image:
    """An RGB picture of one part on a light ground; light, angle (±25°), scale and sharpness are the generator's choice."""
    side = _side_of(size_px)
    lamp = light(rng)
    grounds = ("#f4f3f0", "#e9ebee", "#dfe5ec", "#efe7da", "#d3d6da", "#e3ebe4")
    ground = np.asarray(colour_of(grounds[int(rng.integers(len(grounds)))]), np.float32) ** 2
    v = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    sweep = np.float32(0.86) + np.float32(0.14) * np.abs(v - np.float32(rng.uniform(0.2, 0.5)))
    stage = Stage(
        ground[:, None, None] * np.broadcast_to(sweep, (side, side)), np.zeros((2, side, side), np.float32), 0.05, lamp
    )
    x, y = rng.uniform(-0.03, 0.03, 2) + 0.5
    scale = rng.uniform(0.29, 0.35) * (0.55 + 0.45 * min(part.size, 1.0))
    pose = Pose(x * side, y * side, scale * side, rng.uniform(-25, 25), rng.uniform(0.05, 0.6), rng.uniform(60, 120))
    stage.put(sprite_of(part), pose)
    return snap(stage.lit(), camera(rng, margin=0.07, play=0.025, turn=0), size_px, rng)


def bin_photo(bin_: Bin, rng: np.random.Generator, *, size_px: int = 256, without: int | None = None) -> BinPhoto:
    """A view of a bin. Views by different generators show the same things, stirred a little, in another light and angle.

    without: leave out the item of this index in `layout(bin_)`, as after someone took it.
    """
    side = _side_of(size_px)
    lamp = light(rng, dim=1.12)
    fabric = "fabric" in bin_.pod
    walls, normals = _walls(bin_, side)
    weave = 1 + np.float32(0.03 if fabric else 0.01) * rng.standard_normal((side, side), dtype=np.float32)
    stage = Stage(walls * weave, normals, 0.06 if fabric else 0.34, lamp)
    places = _stirred(layout(bin_), rng)
    if without is not None:
        places = places[:without] + places[without + 1 :]
    for i, place in enumerate(places):
        stage.put(sprite_of(place.part), place.pose(side), dimming=0.8 + 0.2 * (i + 1) / len(places))
    linear = stage.lit()
    front = _front(bin_, side)
    front.lay(linear, lamp)
    stage.owner[front.covered] = 0
    _tape(bin_, linear, lamp, rng)
    lens = camera(rng, margin=0.056, play=0.018, turn=3)
    image = snap(linear, lens, size_px, rng)
    owner = np.asarray(seen(Image.fromarray(stage.owner), lens.quad, size_px, Image.Resampling.NEAREST))
    in_view = _in_view(stage.owner, lens.quad)
    visible = tuple(n / max(whole, 1) for n, whole in zip(in_view, stage.outlines, strict=True))
    return BinPhoto(image, tuple(place.part for place in places), owner, visible)


def _in_view(owner: Bytes, quad: Sequence[tuple[float, float]]) -> list[int]:
    plate = Image.new("1", (owner.shape[1], owner.shape[0]))
    ImageDraw.Draw(plate).polygon([(x * owner.shape[1], y * owner.shape[0]) for x, y in quad], fill=1)
    return [int(n) for n in np.bincount(owner[np.asarray(plate)], minlength=int(owner.max()) + 1)[1:]]


def before_after(bin_: Bin, rng: np.random.Generator, *, size_px: int = 256) -> tuple[BinPhoto, BinPhoto, Part]:
    """Two shots of a bin that holds something: with everything, and after one item was taken; and that item's part."""
    if not bin_.count:
        raise BadSettings(f"nothing can be taken from {bin_.id}: it is empty; choose a bin with count > 0")
    taken = int(rng.integers(bin_.count))
    before = bin_photo(bin_, rng, size_px=size_px)
    after = bin_photo(bin_, rng, size_px=size_px, without=taken)
    return before, after, layout(bin_)[taken].part


def _side_of(size_px: int) -> int:
    if size_px not in SIZES_PX:
        raise BadSettings(f"want size_px from {SIZES_PX.start} to {SIZES_PX.stop - 1}, got {size_px}")
    return round(size_px * _STAGE)


# What a bin is made of


def _waves(rng: np.random.Generator, side: int, cells: int) -> Field:
    """Smooth noise of unit spread."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)


@lru_cache(maxsize=8)  # the views of a bin come one after the other; its walls do not change between them
def _walls(bin_: Bin, side: int) -> tuple[Field, Field]:
    """The empty bin seen from the front: linear colour (3, side, side) and normals (2, side, side)."""
    fabric = "fabric" in bin_.pod
    own = np.random.default_rng([bin_.seed, 4])  # folds and dye stay from view to view
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    sag = np.float32(0.006 if fabric else 0.001)
    u = axis[None, :] + sag * _waves(own, side, 7)
    v = axis[:, None] + sag * _waves(own, side, 7)
    across, down = np.minimum(u - 0.05, 0.95 - u) / np.float32(0.115), np.minimum((v - 0.075) / 0.1, (0.9 - v) / 0.155)
    depth = np.minimum(across, down)  # 0 at the opening … 1 at the back wall
    wall = np.where(across < down, np.where(u < 0.5, 0, 1), np.where(v < 0.5, 2, 3))  # left, right, ceiling, floor
    shade = np.array([0.8, 0.74, 0.5, 0.98], np.float32)[wall] * (1 - np.float32(0.42) * depth)
    corner = np.sqrt(np.clip(depth - 1, 0, 1.6))
    shade = np.where(depth >= 1, np.float32(0.46) + np.float32(0.11) * corner, shade)
    shade = np.where(depth < 0, np.float32(0.95), shade)
    slope = np.array([[0.45, -0.45, 0, 0], [0, 0, 0.45, -0.4]], np.float32)[:, wall]
    normals = np.where((depth >= 1) | (depth < 0), np.float32(0), slope)
    normals = normals + (0.07 if fabric else 0.015) * np.stack([_waves(own, side, 11), _waves(own, side, 9)])
    dye = 1 + (0.045 if fabric else 0.012) * _waves(own, side, 24)
    colour = np.asarray(colour_of(_POD_COLOURS[bin_.pod]), np.float32) ** 2
    walls, normals = np.asarray(colour[:, None, None] * (shade * shade * dye), np.float32), normals.astype(np.float32)
    walls.setflags(write=False)
    normals.setflags(write=False)
    return walls, normals


@dataclass(frozen=True, slots=True, eq=False)
class _Front:
    """The front edge of a bin, before a lamp shines on it. Rows from `top` on; label: linear colour, from its own corner on."""

    top: int
    inside: Field  # (h, side): its cover
    shadow: Field  # (h, side): what it leaves of the light on what lies behind
    colour: Field  # (3, h, side)
    covered: NDArray[np.bool_]  # (side, side)
    label: Field  # (3, h, w)
    label_at: tuple[int, int]  # top, left

    def lay(self, linear: Field, lamp: Light) -> None:
        """Draw it over the lit stage."""
        gain = lamp.tint * np.float32(lamp.brightness)
        target = linear[:, self.top :]
        target *= self.shadow
        target += self.inside * (self.colour * gain - target)
        top, left = self.label_at
        target = linear[:, top : top + self.label.shape[1], left : left + self.label.shape[2]]
        target[:] = self.label[:, : target.shape[1]] * gain * np.float32(0.92)


@lru_cache(maxsize=8)  # as the walls
def _front(bin_: Bin, side: int) -> _Front:
    """The front edge of a bin, with its label; the same in every view."""
    own = np.random.default_rng([bin_.seed, 5])
    top = round(0.8 * side)  # nothing of it lies above
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    u, v = axis[None, :], axis[top:, None]
    fabric = "fabric" in bin_.pod
    bow = float(own.uniform(0.006, 0.02)) if fabric else 0.0
    edge = np.float32(_FRONT + 0.005) + np.float32(bow) * (1 - (2 * u - 1) ** 2) + np.float32(0.002) * np.sin(u * 23)
    below = v - edge
    inside = np.clip(below * side + 0.5, 0, 1)
    colour = np.asarray(colour_of(_POD_COLOURS[bin_.pod]), np.float32) ** 2
    roll = (
        np.float32(0.78)
        + np.float32(0.5) * np.exp(-(((below - 0.012) / 0.012) ** 2))
        - np.float32(0.9) * np.clip(below - 0.04, 0, 0.2)
    )
    if fabric:
        stitch = (np.abs(below - 0.034) < 0.003) & (np.mod(u * 60, 1) < 0.6)
        roll = roll - np.float32(0.22) * stitch + np.float32(0.03) * _waves(own, side, 30)[top:]
    shadow = np.float32(1) - np.float32(0.35) * np.exp(-np.maximum(-below, 0) / np.float32(0.012)) * (below < 0)
    covered = np.zeros((side, side), np.bool_)
    covered[top:] = inside > 0.5
    label = _label(bin_, side, own)
    at = round(side * 0.872), round(side * own.uniform(0.3, 0.45))
    return _Front(top, inside, shadow, colour[:, None, None] * roll, covered, label, at)


def _label(bin_: Bin, side: int, own: np.random.Generator) -> Field:
    """The shelf label on the front edge: its code in large letters, and a square code that means nothing."""
    width, height = round(0.24 * side), round(0.066 * side)
    paper = ("#f2efe6", "#f0b9a8", "#a9cdea", "#bfe0b4", "#f3dd8a", "#33405c")[int(own.integers(6))]
    ink = "#f4f2ea" if paper == "#33405c" else "#20242c"
    zoom = 3
    plate = Image.new("RGB", (width * zoom, height * zoom), paper)
    draw = ImageDraw.Draw(plate)
    font = ImageFont.load_default(height * zoom * 0.82)
    draw.text(
        (width * zoom * 0.08, height * zoom * 0.5),
        bin_.shelf,
        fill=ink,
        font=font,
        anchor="lm",
        stroke_width=zoom,
        stroke_fill=ink,
    )
    cells = own.random((9, 9)) < 0.5
    cells[:3, :3] = cells[:3, -3:] = cells[-3:, :3] = True
    cell = height * zoom * 0.76 / 9
    x0, y0 = width * zoom * 0.68, height * zoom * 0.12
    draw.rectangle([x0 - cell, y0 - cell / 2, x0 + 10 * cell, y0 + 9.5 * cell], fill="#f6f5f0")
    for row, column in zip(*np.nonzero(cells), strict=True):
        draw.rectangle(
            [x0 + column * cell, y0 + row * cell, x0 + (column + 1) * cell - 1, y0 + (row + 1) * cell - 1], fill="#1c1e24"
        )
    small = np.asarray(plate.resize((width, height), Image.Resampling.BOX), np.float32).transpose(2, 0, 1) / np.float32(255)
    return np.asarray(small * small, np.float32)


def _tape(bin_: Bin, linear: Field, lamp: Light, rng: np.random.Generator) -> None:
    """Stretch the see-through bands across the front: fine threads, a milky film and where the lamp glares, never opaque."""
    side = linear.shape[1]
    own = np.random.default_rng([bin_.seed, 6])
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    u = axis[None, :]
    for _ in range(int(own.choice(4, p=[0.1, 0.35, 0.4, 0.15]))):
        middle, half, slope = own.uniform(0.26, 0.8), own.uniform(0.04, 0.1), own.normal(0, 0.02)
        film, threads = own.uniform(0.08, 0.2), own.uniform(0.1, 0.26)
        middle, glare_at = middle + rng.normal(0, 0.008), rng.uniform(0.1, 0.9)
        top, bottom = max(0, math.floor((middle - half - 0.06) * side)), min(side, math.ceil((middle + half + 0.06) * side))
        across = axis[top:bottom, None] - np.float32(middle) - np.float32(slope) * (u - np.float32(0.5))
        inside = np.clip((np.float32(half) - np.abs(across)) * side + 0.5, 0, 1)
        inside = inside * np.clip((np.float32(0.46) - np.abs(u - np.float32(0.5))) * side, 0, 1)
        lines = 0.5 + 0.5 * np.sin(across * np.float32(2 * math.pi / 0.0165))
        glare = np.exp(-(((u - np.float32(glare_at) - across) / np.float32(0.14)) ** 2))
        alpha = inside * (np.float32(film) + np.float32(threads) * lines * lines + np.float32(0.12) * glare)
        tone = np.float32(0.42) + np.float32(0.3) * glare
        target = linear[:, top:bottom]
        target += alpha * (tone * lamp.tint * np.float32(lamp.brightness) - target)


# A whole world on disk


_COLUMNS = ("path", "id", "label", "kind", "name", "count", "price", "material", "shelf", "contents")
_CHANGE_COLUMNS = ("path", "id", "label", "moment", "count", "taken", "taken_name", "contents")


@dataclass(frozen=True, slots=True)
class World:
    """A made-up warehouse on disk. The three manifests name pictures beside them, each under a folder of its own.

    manifest: the pictures to index. queries: views that are not among them, with their true labels. changes: shots of a bin
    before and after an item was taken. indexed, asked and changed count their rows.
    """

    folder: Path
    manifest: Path
    queries: Path
    changes: Path
    parts: tuple[Part, ...]
    bins: tuple[Bin, ...]
    indexed: int
    asked: int
    changed: int


def render(
    folder: str | Path,
    *,
    bins: int = 80,
    views: int = 3,
    query_views: int = 1,
    changes: int = 8,
    seed: int = 0,
    size_px: int = 256,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> World:
    """Draw a warehouse into a folder: every part and every bin `views` times to index and `query_views` times to ask with.

    Writes `warehouse/catalogue/SKU/VIEW.jpg`, `warehouse/bins/BIN/VIEW.jpg`, `queries/…` alike, `changes/BIN/before.jpg` and
    `after.jpg`, and a `manifest.csv` in each of the three. The label is the SKU of a part, the id of a bin. The same arguments
    give the same bytes. Raises BadSettings for a number out of range and where the folder holds a warehouse already.
    """
    _check(bins=bins, views=views, query_views=query_views, changes=changes)
    _side_of(size_px)
    folder = Path(folder)
    homes = [folder / name for name in ("warehouse", "queries", "changes")]
    for home in homes:
        if home.exists() and any(home.iterdir()):
            raise BadSettings(f"want a folder without a warehouse, but {home} is not empty; remove it or choose another folder")
    parts = catalogue(seed)
    filled = fill_bins(parts, bins, seed=seed)
    changing = [b for b in filled if b.count][:changes]
    drawn, total = itertools.count(1), (views + query_views) * (len(parts) + bins) + 2 * len(changing)
    artist = _Artist(seed, size_px, lambda: progress(next(drawn), total))
    indexed = artist.draw(homes[0], parts, filled, range(views))
    asked = artist.draw(homes[1], parts, filled, range(views, views + query_views))
    changed = artist.draw_changes(homes[2], changing)
    manifest, queries, taken = (home / "manifest.csv" for home in homes)
    return World(folder, manifest, queries, taken, parts, filled, indexed, asked, changed)


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if not 0 <= number <= 100_000:
            raise BadSettings(f"want {name} from 0 to 100000, got {number}")


@dataclass(frozen=True, slots=True)
class _Artist:
    """Draws with one seed; each picture has a generator of its own, so it does not depend on which were drawn before."""

    seed: int
    size_px: int
    drew: Callable[[], None]  # called after each picture

    def draw(self, home: Path, parts: Sequence[Part], filled: Sequence[Bin], views: range) -> int:
        rows: list[dict[str, object]] = []
        for i, part in enumerate(parts):
            for view in views:
                rng = np.random.default_rng([self.seed, 7, i, view])
                path = self._save(
                    catalogue_photo(part, rng, size_px=self.size_px), home, f"catalogue/{part.sku}/{view}.jpg", rng
                )
                rows.append({"path": path, "id": f"{part.sku}/{view}", **_part_record(part)})
        for i, bin_ in enumerate(filled):
            for view in views:
                rng = np.random.default_rng([self.seed, 8, i, view])
                path = self._save(bin_photo(bin_, rng, size_px=self.size_px).image, home, f"bins/{bin_.id}/{view}.jpg", rng)
                rows.append({"path": path, "id": f"{bin_.id}/{view}", **_bin_record(bin_)})
        _write(home / "manifest.csv", _COLUMNS, rows)
        return len(rows)

    def draw_changes(self, home: Path, filled: Sequence[Bin]) -> int:
        rows: list[dict[str, object]] = []
        for i, bin_ in enumerate(filled):
            rng = np.random.default_rng([self.seed, 9, i])
            before, after, taken = before_after(bin_, rng, size_px=self.size_px)
            left = list(bin_.items)
            left.remove(taken)
            for moment, photo, items in (("before", before, bin_.items), ("after", after, tuple(left))):
                path = self._save(photo.image, home, f"{bin_.id}/{moment}.jpg", rng)
                told = (path, f"{bin_.id}/{moment}", bin_.id, moment, len(items), taken.sku, taken.name, _listed(items))
                rows.append(dict(zip(_CHANGE_COLUMNS, told, strict=True)))
        _write(home / "manifest.csv", _CHANGE_COLUMNS, rows)
        return len(rows)

    def _save(self, image: Image.Image, home: Path, path: str, rng: np.random.Generator) -> str:
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target, "JPEG", quality=int(rng.integers(70, 95)))
        self.drew()
        return path


def _part_record(part: Part) -> dict[str, object]:
    return {
        "label": part.sku,
        "kind": "part",
        "name": part.name,
        "count": 1,
        "price": part.price,
        "material": part.material,
        "shelf": part.shelf,
        "contents": f"1 x {part.name}",
    }


def _bin_record(bin_: Bin) -> dict[str, object]:
    materials = sorted({part.material for part, _ in bin_.contents})
    return {
        "label": bin_.id,
        "kind": "bin",
        "name": f"Bin {bin_.shelf}, {bin_.pod}",
        "count": bin_.count,
        "price": bin_.price,
        "material": " + ".join(materials) or "none",
        "shelf": bin_.shelf,
        "contents": _listed(bin_.items),
    }


def _listed(items: Iterable[Part]) -> str:
    return "; ".join(f"{quantity} x {part.name}" for part, quantity in Counter(items).items()) or "empty"


def _write(path: Path, columns: Sequence[str], rows: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
