"""A small painter: shapes become sprites, sprites are laid on a stage, the stage is lit and photographed.

A shape is a signed distance field (negative inside), so edges are smooth without supersampling. A sprite keeps colour,
surface normals and shine apart, and the light comes last: one light falls on a whole picture, however its things are turned.
Everything is a function of its arguments and of the generator handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Field: TypeAlias = NDArray[np.float32]
Relief: TypeAlias = NDArray[np.float32] | NDArray[np.float64] | float
Bytes: TypeAlias = NDArray[np.uint8]
Window: TypeAlias = tuple[slice, slice]  # rows, columns
Colour: TypeAlias = tuple[float, float, float]  # sRGB, 0 … 1
Quad: TypeAlias = tuple[tuple[float, float], ...]  # four corners: top left, top right, bottom right, bottom left

SPRITE_PX = 256
SHADOW_REACH = 1.5  # a shadow sprite covers this many half sizes
_SHADOW_PX = 96


def colour_of(text: str) -> Colour:
    """The colour of `#rrggbb`, each channel in 0 … 1."""
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red / 255, green / 255, blue / 255


def mixed(a: Colour, b: Colour, share_of_b: float) -> Colour:
    """A colour between a and b."""
    red, green, blue = (p + (q - p) * share_of_b for p, q in zip(a, b, strict=True))
    return red, green, blue


# Shapes: signed distance to the edge, in sprite units (the sprite spans −1 … 1), negative inside.


def circle(x: Field, y: Field, r: float) -> Field:
    """Disc of radius r."""
    return np.asarray(np.hypot(x, y) - np.float32(r), np.float32)


def ring(x: Field, y: Field, r: float, half_width: float) -> Field:
    """Band of the given half width along a circle of radius r."""
    return np.asarray(np.abs(np.hypot(x, y) - np.float32(r)) - np.float32(half_width), np.float32)


def box(x: Field, y: Field, w: float, h: float, r: float = 0.0) -> Field:
    """Rectangle of half sides w and h with corners rounded by r."""
    qx = np.abs(x) - np.float32(w - r)
    qy = np.abs(y) - np.float32(h - r)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - np.float32(r), np.float32)


def ngon(x: Field, y: Field, n: int, r: float) -> Field:
    """Regular polygon of n sides whose inscribed circle has radius r."""
    half = math.pi / n
    angle = np.mod(np.arctan2(y, x) + half, 2 * half) - half
    return (np.hypot(x, y) * np.cos(angle) - r).astype(np.float32)


def segment(x: Field, y: Field, a: tuple[float, float], b: tuple[float, float], r: float) -> Field:
    """Line from a to b, 2 r thick, with round ends."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return (np.hypot(x - a[0] - along * dx, y - a[1] - along * dy) - r).astype(np.float32)


def toothed(x: Field, y: Field, n: int, r: float, depth: float, sharp: float = 1.8) -> Field:
    """Disc of radius r with n teeth that rise `depth` above it."""
    wave = np.clip(np.cos(np.arctan2(y, x) * n) * sharp, -1, 1)
    return np.asarray(0.8 * (np.hypot(x, y) - r - depth * (0.5 + 0.5 * wave)), np.float32)


def turned(x: Field, y: Field, degrees: float) -> tuple[Field, Field]:
    """Coordinates in which a shape appears turned clockwise by the angle."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Sprite:
    """A thing ready to be laid down, in several sizes, largest first.

    faces: RGBA. outline: L, the cover of the smallest face. details: RGB holding normal x, normal y (both 128 = 0) and shine.
    shadow: its blurred outline, reaching SHADOW_REACH half sizes. edge: colour of its sides. thickness: in half sizes.
    """

    faces: tuple[Image.Image, ...]
    outline: Image.Image
    details: tuple[Image.Image, ...]
    shadow: Image.Image
    edge: Colour
    thickness: float


@final
class Canvas:
    """Where a sprite is painted: colour, cover, height and shine of every point; `x` and `y` run from −1 to 1, y downward."""

    def __init__(self, size_px: int = SPRITE_PX) -> None:
        axis = (np.arange(size_px, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size_px) - np.float32(1)
        self.size_px = size_px
        self.x: Field
        self.y: Field
        self.x, self.y = (np.ascontiguousarray(a) for a in np.meshgrid(axis, axis))
        self._rgb = np.zeros((size_px, size_px, 3), np.float32)
        self._cover = np.zeros((size_px, size_px), np.float32)
        self._height = np.zeros((size_px, size_px), np.float32)
        self._shine = np.zeros((size_px, size_px), np.float32)

    def _inside(self, shape: Field) -> tuple[Window, Field]:
        """Where a shape is, and how much of each point there it covers."""
        window = _around(shape < np.float32(1 / self.size_px))  # half a point beyond its edge
        return window, np.asarray(np.clip(0.5 - shape[window] * np.float32(self.size_px / 2), 0, 1), np.float32)

    def add(
        self,
        shape: Field,
        colour: Colour,
        *,
        rise: float = 0.08,
        bevel: float = 0.06,
        shine: float = 0.3,
        level: float | None = None,
    ) -> None:
        """Put a body on what lies there: `rise` high, its rim rounded over `bevel` (half its width makes a tube).

        shine: 0 matt … 0.5 glossy, from there on metal … 1 polished.
        level: the height it stands on; by default what lies there.
        """
        window, inside = self._inside(shape)
        depth = np.clip(-shape[window] / np.float32(bevel), 0, 1)
        profile = np.sqrt(depth * (2 - depth)) * np.float32(rise)
        height, was_shine, cover = self._height[window], self._shine[window], self._cover[window]
        ground = height if level is None else np.float32(level)
        height += inside * (ground + profile - height)
        was_shine += inside * (np.float32(shine) - was_shine)
        self._blend(window, inside, colour)
        np.maximum(cover, inside, out=cover)

    def paint(self, shape: Field, colour: Colour, *, shine: float | None = None, strength: float = 1.0) -> None:
        """Change the colour, and the shine if given, of what lies there."""
        window, inside = self._inside(shape)
        inside = inside * np.float32(strength)
        self._blend(window, inside, colour)
        if shine is not None:
            was = self._shine[window]
            was += inside * (np.float32(shine) - was)

    def emboss(self, shape: Field, relief: Relief) -> None:
        """Raise (or, below zero, sink) what lies there by a relief."""
        window, inside = self._inside(shape)
        self._height[window] += inside * np.broadcast_to(np.asarray(relief, np.float32), shape.shape)[window]

    def cut(self, shape: Field) -> None:
        """Make a hole."""
        window, inside = self._inside(shape)
        self._cover[window] *= 1 - inside

    def write(self, text: str, at: tuple[float, float], size: float, colour: Colour, degrees: float = 0.0) -> None:
        """Print a text, centred; size is the height of its letters' body."""
        plate = Image.new("L", (self.size_px, self.size_px))
        font = ImageFont.load_default(size * self.size_px / 2)
        middle = tuple((p + 1) * self.size_px / 2 for p in at)
        ImageDraw.Draw(plate).text((middle[0], middle[1]), text, fill=255, font=font, anchor="mm")
        if degrees:
            plate = plate.rotate(-degrees, Image.Resampling.BICUBIC, center=(middle[0], middle[1]))
        left, top, right, bottom = plate.getbbox() or (0, 0, 0, 0)
        window = slice(top, bottom), slice(left, right)
        self._blend(window, np.asarray(plate, np.float32)[window] / np.float32(255) * self._cover[window], colour)

    def _blend(self, window: Window, weight: Field, colour: Colour) -> None:
        rgb = self._rgb[window]
        rgb += weight[..., None] * (np.asarray(colour, np.float32) - rgb)

    def sprite(self, *, thickness: float) -> Sprite:
        """What was painted, with creases darkened and normals taken from the heights."""
        n = self.size_px
        height = _blurred(self._height, 1)
        slope_y, slope_x = np.gradient(height, 2 / n)
        length = np.sqrt(1 + slope_x**2 + slope_y**2)
        crease = np.clip(1 - 2.2 * np.maximum(_blurred(height, 12) - height, 0), 0.55, 1)
        colour = np.concatenate([self._rgb * crease[..., None], self._cover[..., None]], axis=2)
        detail = np.stack([0.5 - slope_x / length / 2, 0.5 - slope_y / length / 2, self._shine], axis=2)
        solid = self._cover > 0.5
        mean = self._rgb[solid].mean(axis=0) if solid.any() else np.zeros(3)
        edge = mixed((float(mean[0]), float(mean[1]), float(mean[2])), (0.0, 0.0, 0.0), 0.25)
        face, fine = Image.fromarray(_bytes(colour), "RGBA"), Image.fromarray(_bytes(detail), "RGB")
        sizes = [n, n // 2, n // 4]
        faces = tuple(face.resize((s, s), Image.Resampling.BOX) for s in sizes)
        return Sprite(
            faces,
            faces[-1].getchannel("A"),
            tuple(fine.resize((s, s), Image.Resampling.BOX) for s in sizes),
            _shadow_of(face.getchannel("A")),
            edge,
            thickness,
        )


def _around(points: NDArray[np.bool_]) -> Window:
    """The smallest window that holds all of the points."""
    rows, columns = np.flatnonzero(points.any(axis=1)), np.flatnonzero(points.any(axis=0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(0), slice(0))


def _bytes(values: Field) -> Bytes:
    return np.asarray(np.clip(values * 255 + 0.5, 0, 255), np.uint8)


def _blurred(values: Field, radius_px: int) -> Field:
    side = 2 * radius_px + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius_px + 1, radius_px)
        sums = np.cumsum(np.pad(values, pad, mode="edge"), axis=axis, dtype=np.float64)
        high, low = (sums[side:], sums[:-side]) if axis == 0 else (sums[:, side:], sums[:, :-side])
        values = ((high - low) / side).astype(np.float32)
    return values


def _shadow_of(mask: Image.Image) -> Image.Image:
    inner = round(_SHADOW_PX / SHADOW_REACH)
    plate = Image.new("L", (_SHADOW_PX, _SHADOW_PX))
    plate.paste(mask.resize((inner, inner), Image.Resampling.BOX), ((_SHADOW_PX - inner) // 2,) * 2)
    return plate.filter(ImageFilter.GaussianBlur(4))


@dataclass(frozen=True, slots=True)
class Pose:
    """How a sprite lies in a picture. x, y, scale (its half size) in pixels; angle clockwise, in degrees.

    tilt: how far it leans away from the camera, in radians, around a line at right angles to `lean` (degrees; 90 is down).
    """

    x: float
    y: float
    scale: float
    angle: float = 0.0
    tilt: float = 0.0
    lean: float = 90.0

    def matrices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(2, 2) each: from sprite units to pixels, around (x, y), and back."""
        return _matrices(self.scale, self.angle, self.tilt, self.lean)

    def side(self, thickness: float) -> tuple[float, float]:
        """How far, in pixels, the far rim of a leaning thing shows beside its face: its visible side."""
        drop, lean = self.scale * thickness * math.sin(self.tilt), math.radians(self.lean)
        return drop * math.cos(lean), drop * math.sin(lean)


@lru_cache(maxsize=64)  # a thing is laid several times: its face, its relief, its shadow
def _matrices(scale: float, angle: float, tilt: float, lean: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    along, squash = _rotation(lean), math.cos(tilt)
    matrix = along @ np.diag([squash, 1.0]) @ along.T @ _rotation(angle) * scale
    return matrix, np.asarray(np.linalg.inv(matrix), np.float64)


def _rotation(degrees: float) -> NDArray[np.float64]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of a picture: `image` lies with its top left corner at (left, top)."""

    image: Image.Image
    left: int
    top: int


def laid(image: Image.Image, pose: Pose, *, reach: float = 1.0, margin_px: int = 0) -> Patch:
    """An image that spans `reach` sprite units around its middle, as it looks under a pose."""
    matrix, inverse = pose.matrices()
    half_x, half_y = np.abs(matrix).sum(axis=1) * reach + margin_px + 1
    left, top = math.floor(pose.x - half_x), math.floor(pose.y - half_y)
    width, height = math.ceil(pose.x + half_x) - left, math.ceil(pose.y + half_y) - top
    back = inverse * (image.width / 2 / reach)
    shift = back @ np.array([left - pose.x, top - pose.y]) + image.width / 2
    data = (back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1])
    warped = image.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return Patch(warped, left, top)


@dataclass(frozen=True, slots=True)
class Light:
    """One soft lamp: where it stands (unit vector, z toward the camera), how bright, how warm (−0.1 … 0.1), how uneven."""

    direction: tuple[float, float, float]
    ambient: float
    brightness: float
    warmth: float
    fall: tuple[float, float]
    vignette: float

    @property
    def tint(self) -> Field:
        """(3, 1, 1): its colour."""
        return np.asarray([1 + self.warmth, 1, 1 - self.warmth], np.float32)[:, None, None]


def light(rng: np.random.Generator, *, dim: float = 1.0) -> Light:
    """A lamp somewhere above, of varied brightness and colour."""
    x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.8, -0.45)
    z = 0.9
    length = math.sqrt(x * x + y * y + z * z)
    return Light(
        (x / length, y / length, z / length),
        ambient=float(rng.uniform(0.38, 0.52)),
        brightness=float(dim * rng.uniform(0.84, 1.14)),
        warmth=float(rng.uniform(-0.05, 0.09)),
        fall=(float(rng.uniform(-0.16, 0.16)), float(rng.uniform(-0.2, 0.06))),
        vignette=float(rng.uniform(0.04, 0.24)),
    )


@final
class Stage:
    """The scene of one picture before it is lit: seven planes (linear colour, normal x and y, shine, open to light).

    background: linear colour (3, h, w); normals: (2, h, w). Planes lie one after the other because numpy is fastest so.
    `owner` tells, for every point, which thing is seen there: 0 the background, i + 1 the i-th thing put down.
    """

    def __init__(self, background: Field, normals: Field, shine: float, lamp: Light) -> None:
        height, width = background.shape[1:]
        self._planes = np.empty((7, height, width), np.float32)
        self._planes[:3] = background
        self._planes[3:5] = normals
        self._planes[5] = shine
        self._planes[6] = 1
        self._lamp = lamp
        self.owner: Bytes = np.zeros((height, width), np.uint8)
        self.outlines: list[int] = []  # points of each thing, were nothing in front of it

    def put(self, sprite: Sprite, pose: Pose, *, dimming: float = 1.0) -> None:
        """Lay a thing on what is there, with its shadow and its sides."""
        self._darken(sprite, pose)
        level = sum(s.width / 2 > pose.scale * 0.9 for s in sprite.faces[1:])
        lean = math.radians(pose.lean)
        step = pose.side(sprite.thickness)
        margin = math.ceil(math.hypot(*step)) + 1
        face = laid(sprite.faces[level], pose, margin_px=margin)
        fine = laid(sprite.details[level], pose, margin_px=margin)
        values = _planes_of(face.image)  # (4, h, w)
        detail = _planes_of(fine.image)
        cover = values[3]
        new = np.empty((7, *cover.shape), np.float32)
        np.multiply(values[:3], values[:3] * np.float32(dimming), out=new[:3])
        new[3:5] = _turned_normals(detail[:2] * 2 - np.float32(1.004), pose)
        new[5] = detail[2]
        new[6] = 1
        body = cover
        if margin > 2:
            body = swept(cover, step)
            side = np.asarray(
                [*(c * c * dimming for c in sprite.edge), math.cos(lean) * 0.5, math.sin(lean) * 0.5, 0.2, 1], np.float32
            )
            self._lay(side, body, face.left, face.top)
        self._lay(new, cover, face.left, face.top)
        self._own(body, face.left, face.top)

    def _darken(self, sprite: Sprite, pose: Pose) -> None:
        reach = pose.scale * (0.06 + 0.5 * sprite.thickness)
        x, y, z = self._lamp.direction
        moved = Pose(pose.x - reach * x / z, pose.y - reach * y / z, pose.scale, pose.angle, pose.tilt, pose.lean)
        patch = laid(sprite.shadow, moved, reach=SHADOW_REACH)
        window, part = self._window(patch.left, patch.top, patch.image.height, patch.image.width)
        self._planes[6][window] *= 1 - np.asarray(patch.image, np.float32)[part] * np.float32(0.72 / 255)

    def _window(self, left: int, top: int, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        rows, columns = self.owner.shape
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, columns), min(top + height, rows)
        x1, y1 = max(x0, x1), max(y0, y1)
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))

    def _lay(self, values: Field, cover: Field, left: int, top: int) -> None:
        window, part = self._window(left, top, *cover.shape)
        target = self._planes[:, *window]
        new = values[:, None, None] if values.ndim == 1 else values[:, *part]
        target += cover[part] * (new - target)

    def _own(self, body: Field, left: int, top: int) -> None:
        window, part = self._window(left, top, *body.shape)
        self.outlines.append(int(np.count_nonzero(body > 0.5)))
        self.owner[window][body[part] > 0.5] = len(self.outlines)

    def lit(self) -> Field:
        """(3, h, w) linear colour under the lamp: Lambert, a Blinn–Phong highlight, and for metals a made-up room to mirror."""
        lamp = self._lamp
        height, width = self.owner.shape
        u = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        v = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        nx, ny, shine, free = self._planes[3:]
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, np.float32(0.04)))
        lx, ly, lz = (np.float32(c) for c in lamp.direction)
        direct = np.maximum(nx * lx + ny * ly + nz * lz, 0) / lz
        ambient = np.float32(lamp.ambient)
        diffuse = ambient * (0.45 + 0.55 * free) * (0.82 + 0.18 * nz - 0.12 * ny) + (1 - ambient) * direct * free
        metal = np.clip(2 * shine - 1, 0, 1)
        mirror = -2 * nz * ny - np.float32(0.45) * v + np.float32(0.35) * (2 * nz * nx + np.float32(0.4) * u)
        room = (
            np.float32(0.58)
            + np.float32(0.38) * np.sin(np.float32(2.3) * mirror)
            + np.float32(0.1) * np.sin(np.float32(6.5) * mirror)
        )
        strength = diffuse + metal * (np.float32(0.2) * diffuse + room * (0.35 + 0.65 * free) - diffuse)
        half = math.sqrt(float(lx * lx + ly * ly + (lz + 1) ** 2))
        glint = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / np.float32(half), 0)
        for _ in range(6):
            glint = glint * glint  # to the power of 64
        glint = np.maximum(glint - np.float32((float(lz + 1) / half) ** 64), 0)  # flat tops keep their colour
        gloss = np.minimum(2 * shine, 1)
        glint *= gloss * gloss * free * np.float32(0.5)
        gain = (1 + np.float32(lamp.fall[0]) * u + np.float32(lamp.fall[1]) * v) * (
            1 - np.float32(lamp.vignette) * (u * u + v * v) / 2
        )
        gain = gain * np.float32(lamp.brightness)
        colour: Field = self._planes[:3] * strength
        colour += glint
        colour *= gain
        colour *= lamp.tint
        return colour


def _planes_of(image: Image.Image) -> Field:
    """(channels, h, w) in 0 … 1."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)) * np.float32(1 / 255)


def _turned_normals(normals: Field, pose: Pose) -> Field:
    """(2, h, w): turned with the thing, and bent by how it leans."""
    c, s = math.cos(math.radians(pose.angle)), math.sin(math.radians(pose.angle))
    lean, bias = math.radians(pose.lean), -0.45 * math.sin(pose.tilt)
    x, y = normals
    return np.stack([c * x - s * y + bias * math.cos(lean), s * x + c * y + bias * math.sin(lean)]).astype(np.float32)


def swept(cover: Field, step: tuple[float, float]) -> Field:
    """The area a cover passes when it moves by a step (x, y)."""
    area = cover.copy()
    count = math.ceil(max(abs(step[0]), abs(step[1])))
    rows, columns = cover.shape
    for i in range(1, count + 1):
        dx, dy = round(step[0] * i / count), round(step[1] * i / count)
        target = area[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)]
        source = cover[max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : columns + min(-dx, 0)]
        np.maximum(target, source, out=target)
    return area


@dataclass(frozen=True, slots=True)
class Camera:
    """How a lit stage becomes a picture: the quad of the stage that is seen (in shares of it), blur and noise."""

    quad: Quad
    blur_px: float
    noise: float


def camera(rng: np.random.Generator, *, margin: float, play: float, turn: float) -> Camera:
    """A camera that looks a little from one side; `margin` of the stage stays out of view, give or take `play`.

    turn: the largest roll in degrees.
    """
    zoom = 0.5 - margin + rng.uniform(-play, play)
    shift = rng.uniform(-play, play, 2) * 0.6
    roll = _rotation(float(rng.uniform(-turn, turn)))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * zoom + rng.uniform(-play, play, (4, 2)) * 0.5
    corners = np.clip(corners @ roll.T + shift + 0.5, 0.002, 0.998)
    return Camera(
        tuple((float(x), float(y)) for x, y in corners),
        blur_px=float(max(0.0, rng.uniform(-0.7, 0.7))),
        noise=float(rng.uniform(0.003, 0.015)),
    )


def seen(image: Image.Image, quad: Quad, size_px: int, resample: Image.Resampling) -> Image.Image:
    """The quad of an image as a square picture of size_px."""
    source = np.asarray(quad) * image.width
    target = np.array([[0, 0], [size_px, 0], [size_px, size_px], [0, size_px]])
    rows = []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    data = tuple(np.linalg.solve(np.array(rows, np.float64), source.reshape(-1)))
    return image.transform((size_px, size_px), Image.Transform.PERSPECTIVE, data, resample)


def snap(linear: Field, lens: Camera, size_px: int, rng: np.random.Generator) -> Image.Image:
    """The RGB picture a camera takes of a lit stage, (3, h, w) linear colour."""
    shown = np.sqrt(np.clip(linear, 0, 1)) * np.float32(255)
    flat = Image.fromarray(np.ascontiguousarray((shown + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)), "RGB")
    image = seen(flat, lens.quad, size_px, Image.Resampling.BILINEAR)
    if lens.blur_px > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(lens.blur_px))
    half_px = (size_px + 1) // 2
    spread = np.float32(255 * lens.noise / math.sqrt(2))
    blotches = spread * rng.standard_normal(
        (half_px, half_px, 3), dtype=np.float32
    )  # colour noise is coarser than luminance noise
    noisy = blotches.repeat(2, axis=0).repeat(2, axis=1)[:size_px, :size_px]
    noisy += spread * rng.standard_normal((size_px, size_px, 1), dtype=np.float32)
    noisy += np.asarray(image)
    return Image.fromarray(np.clip(noisy, 0, 255, out=noisy).astype(np.uint8), "RGB")
