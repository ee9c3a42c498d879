"""The made-up catalogue: some forty kinds of parts, each with a look of its own and a record.

Every brand, name and number here is invented. A family is a function that paints one kind of part on a canvas from its
colours and its `n` (teeth, pins, turns, …).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from binsight.data.photo import (
    Canvas,
    Colour,
    Sprite,
    box,
    circle,
    colour_of,
    mixed,
    ngon,
    ring,
    segment,
    toothed,
    turned,
)

STEEL, ZINC, IRON = colour_of("#b4bac3"), colour_of("#ccd1d6"), colour_of("#6b717b")
BRASS, COPPER = colour_of("#dcb34c"), colour_of("#cd7c43")
BLACK, WHITE, GREY, CARD = colour_of("#2a2c31"), colour_of("#f2f1ec"), colour_of("#8d9299"), colour_of("#c39a68")
METAL, SATIN, GLOSSY, PLASTIC, MATT = 0.95, 0.72, 0.5, 0.32, 0.08


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of part. size: of the thing itself, about 0.6 (a fuse) to 1.2 (a carton); price in euros."""

    sku: str
    name: str
    family: str
    colours: tuple[Colour, ...]
    n: int
    size: float
    material: str
    price: float
    shelf: str


def _gear(c: Canvas, p: Part) -> float:
    body, hub = p.colours[:2]
    shine = SATIN if p.material != "nylon" else PLASTIC
    c.add(toothed(c.x, c.y, p.n, 0.72, 0.2), body, rise=0.1, bevel=0.05, shine=shine)
    c.emboss(ring(c.x, c.y, 0.47, 0.14), -0.06)
    c.add(circle(c.x, c.y, 0.27), hub, rise=0.07, bevel=0.05, shine=shine)
    for i in range(5 if p.n < 20 else 6):
        x, y = turned(c.x, c.y, i * (72 if p.n < 20 else 60))
        c.cut(circle(x - 0.47, y, 0.13 if p.n < 20 else 0.1))
    c.cut(np.minimum(circle(c.x, c.y, 0.13), box(c.x, c.y + 0.13, 0.045, 0.06)))
    return 0.22


def _bolt(c: Canvas, p: Part) -> float:
    body, tip = p.colours[:2]
    c.add(box(c.x, c.y - 0.16, 0.18, 0.74, 0.04), body, rise=0.18, bevel=0.18, shine=SATIN)
    c.emboss(box(c.x, c.y - 0.34, 0.2, 0.56), 0.022 * np.sin(c.y * (6.28 * p.n / 1.1) + c.x * 2.4))
    c.paint(box(c.x, c.y - 0.82, 0.2, 0.08), tip)
    c.add(box(c.x, c.y + 0.48, 0.44, 0.05, 0.03), mixed(body, WHITE, 0.15), rise=0.05, bevel=0.05, shine=SATIN, level=0.1)
    for x, w in ((-0.3, 0.11), (0.0, 0.2), (0.3, 0.11)):
        c.add(box(c.x - x, c.y + 0.69, w, 0.19, 0.03), body, rise=0.05, bevel=0.05, shine=SATIN, level=0.2 - abs(x) / 3)
    return 0.1


def _nut(c: Canvas, p: Part) -> float:
    c.add(ngon(c.x, c.y, 6, 0.72), p.colours[0], rise=0.07, bevel=0.05, shine=SATIN)
    c.emboss(circle(c.x, c.y, 0.72), 0.04)
    c.emboss(circle(c.x, c.y, 0.45), -0.06 + 0.02 * np.sin(np.hypot(c.x, c.y) * 90))
    c.paint(ring(c.x, c.y, 0.42, 0.04), p.colours[1])
    c.cut(circle(c.x, c.y, 0.36))
    return 0.35


def _washer(c: Canvas, p: Part) -> float:
    outline = toothed(c.x, c.y, p.n, 0.72, 0.18) if p.n else circle(c.x, c.y, 0.88)
    c.add(outline, p.colours[0], rise=0.05, bevel=0.05, shine=METAL)
    c.emboss(ring(c.x, c.y, 0.62, 0.05), -0.02)
    c.cut(circle(c.x, c.y, 0.42))
    return 0.06


def _bearing(c: Canvas, p: Part) -> float:
    steel, seal = p.colours[:2]
    c.add(circle(c.x, c.y, 0.9), steel, rise=0.06, bevel=0.05, shine=METAL)
    c.emboss(ring(c.x, c.y, 0.56, 0.17), -0.05)
    c.paint(ring(c.x, c.y, 0.56, 0.17), seal, shine=GLOSSY if not p.n else 0.2)
    for i in range(p.n):
        x, y = turned(c.x, c.y, i * 360 / p.n)
        c.add(circle(x - 0.56, y, 0.14), ZINC, rise=0.14, bevel=0.14, shine=METAL)
    if not p.n:
        c.emboss(ring(c.x, c.y, 0.56, 0.1), 0.02)
        for i in range(3):
            c.write("OSTRA", _at(0.56, i * 120 + 30), 0.12, WHITE, i * 120 + 120)
    c.cut(circle(c.x, c.y, 0.27))
    return 0.3


def _at(radius: float, degrees: float) -> tuple[float, float]:
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


def _corner_bracket(c: Canvas, p: Part) -> float:
    body = p.colours[0]
    leg = np.minimum(box(c.x + 0.52, c.y, 0.34, 0.86, 0.1), box(c.x, c.y - 0.52, 0.86, 0.34, 0.1))
    gusset = np.maximum(np.maximum(c.x + 0.25, 0) + np.maximum(0.25 - c.y, 0) - 0.42, box(c.x, c.y, 0.8, 0.8))
    c.add(np.minimum(leg, gusset), body, rise=0.05, bevel=0.05, shine=SATIN if p.material == "steel" else GLOSSY)
    c.emboss(segment(c.x, c.y, (-0.52, -0.5), (-0.52, 0.52), 0.07), -0.02)
    for x, y in ((-0.52, -0.6), (-0.52, -0.12), (0.12, 0.52), (0.6, 0.52), (-0.52, 0.52)):
        c.emboss(circle(c.x - x, c.y - y, 0.17), -0.02)
        c.cut(circle(c.x - x, c.y - y, 0.11))
    return 0.07


def _strip(c: Canvas, p: Part) -> float:
    c.add(box(c.x, c.y, 0.28, 0.94, 0.26), p.colours[0], rise=0.04, bevel=0.04, shine=GLOSSY)
    for i in range(p.n):
        y = c.y - (i - (p.n - 1) / 2) * 1.52 / (p.n - 1)
        c.emboss(circle(c.x, y, 0.18), 0.02)
        c.cut(circle(c.x, y, 0.12))
    return 0.06


def _spring(c: Canvas, p: Part) -> float:
    colour = p.colours[0]
    pitch = 1.66 / p.n
    shine = SATIN if p.material == "steel" else GLOSSY
    for i in range(p.n + 1):
        y = -0.83 + i * pitch
        if i < p.n:
            back = segment(c.x, c.y, (0.38, y + 0.02), (-0.38, y + pitch), 0.055)
            c.add(back, mixed(colour, BLACK, 0.5), rise=0.05, bevel=0.055, shine=shine, level=0.0)
    for i in range(p.n + 1):
        y = -0.83 + i * pitch
        c.add(segment(c.x, c.y, (-0.4, y), (0.4, y + 0.02), 0.075), colour, rise=0.1, bevel=0.075, shine=shine, level=0.12)
    return 0.1


def _hose(c: Canvas, p: Part) -> float:
    colour, stripe = p.colours[:2]
    for i, r in enumerate((0.82, 0.64, 0.46)):
        c.add(ring(c.x, c.y + 0.015 * i, r, 0.1), colour, rise=0.1, bevel=0.1, shine=GLOSSY)
        c.paint(ring(c.x, c.y + 0.015 * i, r + 0.03, 0.018), stripe)
    for angle in (20.0, 140.0, 260.0):
        x, y = turned(c.x, c.y, angle)
        c.add(box(x - 0.64, y, 0.31, 0.05, 0.03), BLACK, rise=0.04, bevel=0.04, level=0.1)
    x, y = turned(c.x, c.y, 35)
    c.add(box(x - 0.2, y - 0.4, 0.22, 0.11, 0.03), BRASS, rise=0.11, bevel=0.11, shine=SATIN, level=0.08)
    return 0.12


def _carton(c: Canvas, p: Part) -> float:
    base, stripe, ink = p.colours[:3]
    wide = 0.9 if p.n % 2 else 0.62
    c.add(box(c.x, c.y, wide, 0.82, 0.03), base, rise=0.05, bevel=0.04, shine=0.18 if base != CARD else MATT)
    if p.n == 1:  # plain carton with packing tape
        c.paint(box(c.x, c.y, wide, 0.13), stripe, shine=GLOSSY, strength=0.8)
        c.add(box(c.x - 0.38, c.y + 0.46, 0.38, 0.22, 0.01), WHITE, rise=0.005, bevel=0.01, shine=0.2)
        _barcode(c, 0.38, -0.46, 0.3, 0.12)
        c.write("No 7", (-0.5, 0.52), 0.3, ink)
    elif p.n == 2:  # diagonal stripes
        band = np.abs(np.mod(c.x + c.y, 0.5) - 0.25) - np.float32(0.11)
        c.paint(np.maximum(band, box(c.x, c.y + 0.42, wide, 0.38)), stripe)
        c.write("VELTA", (0, 0.18), 0.34, ink)
        _barcode(c, 0.2, 0.58, 0.3, 0.12)
    elif p.n == 3:  # big disc
        c.paint(circle(c.x - 0.3, c.y + 0.1, 0.46), stripe)
        c.paint(circle(c.x - 0.3, c.y + 0.1, 0.2), base)
        c.paint(box(c.x, c.y - 0.64, wide, 0.15), ink)
        c.write("PELLAN", (-0.28, 0.64), 0.24, WHITE)
        c.write("x100", (-0.58, -0.52), 0.26, ink)
    else:  # header, window
        c.paint(box(c.x, c.y + 0.6, wide, 0.22), stripe)
        c.write("KORVA", (0, -0.6), 0.3, WHITE)
        c.paint(box(c.x, c.y - 0.14, 0.44, 0.36, 0.08), mixed(ink, WHITE, 0.75), shine=GLOSSY)
        for i in range(6):
            x, y = c.x + 0.3 - 0.3 * (i % 3), c.y - 0.02 - 0.26 * (i // 3)
            c.add(ngon(x, y, 6, 0.1), ink, rise=0.05, bevel=0.05, shine=SATIN)
        c.write("M8", (0, 0.66), 0.22, ink)
    return 0.5


def _barcode(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    bars = np.sin((c.x - x) * 61) + np.sin((c.x - x) * 37 + 1)
    c.paint(np.maximum(box(c.x - x, c.y - y, w, h), (0.25 - bars) * np.float32(0.02)), BLACK)


def _bottle(c: Canvas, p: Part) -> float:
    body, cap, label = p.colours[:3]
    c.add(box(c.x, c.y + 0.5, 0.15, 0.24, 0.02), body, rise=0.15, bevel=0.15, shine=GLOSSY)
    c.add(box(c.x, c.y - 0.28, 0.43, 0.62, 0.2), body, rise=0.36, bevel=0.42, shine=GLOSSY, level=0.02)
    c.paint(box(c.x, c.y - 0.3, 0.43, 0.36), label, shine=0.25)
    c.paint(box(c.x, c.y - 0.56, 0.43, 0.05), cap)
    c.write("LUMO" if p.n == 1 else "FIXO" if p.n == 2 else "NEVA", (0, 0.14), 0.26, cap)
    c.paint(circle(c.x, c.y - 0.36, 0.08), body)
    c.add(box(c.x, c.y + 0.74, 0.2, 0.17, 0.04), cap, rise=0.2, bevel=0.2, shine=PLASTIC)
    c.emboss(box(c.x, c.y + 0.72, 0.2, 0.13), 0.012 * np.sin(c.x * 75))
    if p.n == 3:
        c.add(segment(c.x, c.y, (0.0, -0.84), (0.5, -0.84), 0.07), cap, rise=0.06, bevel=0.06)
    return 0.1


def _chip(c: Canvas, p: Part) -> float:
    """A dual in-line package for n < 32, else one with pins on all sides."""
    square = p.n >= 32
    half_w, half_h, per_side = (0.62, 0.62, p.n // 4) if square else (0.34, 0.86, p.n // 2)
    for i in range(per_side):
        at = (i - (per_side - 1) / 2) * 1.66 * half_h / per_side
        c.add(box(c.x, c.y - at, half_w + 0.24, 0.028 if square else 0.055, 0.01), ZINC, rise=0.03, bevel=0.03, shine=METAL)
        if square:
            c.add(box(c.x - at, c.y, 0.028, half_w + 0.24, 0.01), ZINC, rise=0.03, bevel=0.03, shine=METAL)
    c.add(box(c.x, c.y, half_w, half_h, 0.03), p.colours[0], rise=0.09, bevel=0.07, shine=0.2, level=0.04)
    if square:
        c.emboss(circle(c.x + 0.42, c.y + 0.42, 0.07), -0.03)
        c.write("AX-77", (0.02, -0.05), 0.26, p.colours[1])
        c.write("made up", (0.02, 0.24), 0.15, p.colours[1])
    else:
        c.emboss(circle(c.x, c.y + 0.86, 0.12), -0.06)
        c.write("NW 555", (0.0, 0.06), 0.26, p.colours[1], 90)
    return 0.12


def _board(c: Canvas, p: Part) -> float:
    mask, chip = p.colours[:2]
    c.add(box(c.x, c.y, 0.92, 0.44 if p.n > 4 else 0.66, 0.04), mask, rise=0.03, bevel=0.03, shine=0.42)
    trace = np.abs(np.mod(c.y + 0.3 * np.clip(c.x * 2, -0.4, 0.4), 0.11) - 0.055) - np.float32(0.012)
    c.paint(np.maximum(trace, box(c.x, c.y, 0.84, 0.36)), mixed(mask, WHITE, 0.22))
    if p.n > 4:  # memory module
        for i in range(p.n):
            x = (i - (p.n - 1) / 2) * 1.7 / p.n
            c.add(box(c.x - x, c.y + 0.08, 0.6 / p.n, 0.2, 0.02), chip, rise=0.05, bevel=0.03, shine=0.25)
        teeth = np.maximum(np.abs(np.mod(c.x, 0.08) - 0.04) - np.float32(0.025), box(c.x, c.y - 0.37, 0.86, 0.075))
        c.paint(teeth, BRASS, shine=SATIN)
        c.cut(box(c.x - 0.1, c.y - 0.42, 0.04, 0.08))
        return 0.05
    c.add(box(c.x + 0.1, c.y, 0.26, 0.26, 0.02), chip, rise=0.06, bevel=0.04, shine=0.25)
    c.write("R2", (-0.1, 0.0), 0.22, GREY)
    c.add(box(c.x + 0.74, c.y + 0.2, 0.2, 0.17, 0.02), ZINC, rise=0.12, bevel=0.04, shine=METAL)
    for i in range(3):
        c.add(circle(c.x - 0.42, c.y + 0.38 - 0.36 * i, 0.13), colour_of("#3b5f9e"), rise=0.12, bevel=0.05, shine=GLOSSY)
        c.paint(circle(c.x - 0.42, c.y + 0.38 - 0.36 * i, 0.1), ZINC, shine=SATIN)
    for i in range(8):
        c.add(circle(c.x - 0.74, c.y + 0.5 - 0.143 * i, 0.045), BRASS, rise=0.04, bevel=0.045, shine=SATIN)
    for x, y in ((-0.8, 0.54), (0.56, 0.54), (0.56, -0.54)):
        c.cut(circle(c.x - x, c.y - y, 0.06))
    return 0.05


def _plug(c: Canvas, p: Part) -> float:
    shell, insert = p.colours[:2]
    c.add(box(c.x, c.y, 0.92, 0.4, 0.08), ZINC, rise=0.05, bevel=0.05, shine=METAL)
    for x in (-0.76, 0.76):
        c.add(ngon(c.x - x, c.y, 6, 0.12), BRASS, rise=0.08, bevel=0.04, shine=SATIN)
        c.emboss(circle(c.x - x, c.y, 0.06), -0.1)
    slope = c.y * 0.16
    c.add(box(c.x + np.sign(c.x, dtype=np.float32) * slope, c.y, 0.6, 0.3, 0.1), shell, rise=0.1, bevel=0.05, shine=SATIN)
    c.add(
        box(c.x + np.sign(c.x, dtype=np.float32) * slope, c.y, 0.53, 0.23, 0.08), insert, rise=-0.05, bevel=0.02, shine=GLOSSY
    )
    for i in range(p.n):
        upper = i < (p.n + 1) // 2
        k = i if upper else i - (p.n + 1) // 2
        x = (k - ((p.n + 1) // 2 - (1 if upper else 2)) / 2) * 0.9 / (p.n // 2)
        c.add(circle(c.x - x, c.y + (0.09 if upper else -0.09), 0.04), BRASS, rise=0.05, bevel=0.04, shine=SATIN)
    return 0.25


def _terminal(c: Canvas, p: Part) -> float:
    body, screw = p.colours[:2]
    c.add(box(c.x, c.y, 0.92, 0.46, 0.03), body, rise=0.12, bevel=0.05, shine=PLASTIC)
    pitch = 1.8 / p.n
    for i in range(p.n):
        x = c.x - (i - (p.n - 1) / 2) * pitch
        c.add(circle(x, c.y + 0.16, pitch * 0.36), screw, rise=-0.05, bevel=0.02, shine=SATIN)
        a, b = turned(x, c.y + 0.16, 25 + 31 * i)
        c.paint(box(a, b, pitch * 0.3, 0.03), BLACK)
        c.paint(box(x, c.y - 0.28, pitch * 0.32, 0.12, 0.02), mixed(body, BLACK, 0.7))
        c.emboss(box(x + pitch / 2, c.y, 0.015, 0.46), -0.04)
    return 0.3


def _can(c: Canvas, p: Part) -> float:
    """An electrolytic capacitor, lying."""
    sleeve, stripe = p.colours[:2]
    for x in (-0.14, 0.14):
        c.add(segment(c.x, c.y, (x, 0.5), (x, 0.92), 0.03), ZINC, rise=0.03, bevel=0.03, shine=METAL)
    c.add(box(c.x, c.y + 0.18, 0.42, 0.72, 0.06), sleeve, rise=0.4, bevel=0.42, shine=GLOSSY)
    c.paint(box(c.x - 0.22, c.y + 0.18, 0.1, 0.72), stripe)
    for y in (-0.7, -0.4, -0.1, 0.2):
        c.paint(box(c.x - 0.22, c.y - y + 0.08, 0.05, 0.02), sleeve)
    c.write("470uF", (-0.14, -0.2), 0.26, stripe, 90)
    c.emboss(box(c.x, c.y - 0.42, 0.42, 0.03), -0.05)
    c.paint(box(c.x, c.y + 0.86, 0.42, 0.04), ZINC, shine=SATIN)
    return 0.08


def _resistor(c: Canvas, p: Part) -> float:
    c.add(segment(c.x, c.y, (0, -0.92), (0, 0.92), 0.035), ZINC, rise=0.035, bevel=0.035, shine=METAL)
    body = np.minimum(box(c.x, c.y, 0.19, 0.46, 0.16), np.minimum(circle(c.x, c.y + 0.36, 0.25), circle(c.x, c.y - 0.36, 0.25)))
    c.add(body, p.colours[0], rise=0.24, bevel=0.24, shine=0.42)
    for y, colour in zip((-0.4, -0.16, 0.02, 0.38), p.colours[1:], strict=True):
        c.paint(np.maximum(body, np.abs(c.y - y) - np.float32(0.055)), colour)
    return 0.06


def _cable(c: Canvas, p: Part) -> float:
    sheath, plug = p.colours[:2]
    for i in range(p.n):
        tilt = 0.06 * math.sin(2.4 * i)
        c.add(
            ring(c.x + tilt, (c.y + 0.02 * i - 0.02) * 1.12, 0.74 - 0.085 * i, 0.05),
            sheath,
            rise=0.06,
            bevel=0.05,
            shine=GLOSSY,
        )
    c.add(box(c.x, c.y - 0.58, 0.16, 0.27, 0.03), colour_of("#d8d4c8"), rise=0.03, bevel=0.03, level=0.12)
    x, y = turned(c.x - 0.52, c.y + 0.5, 35)
    c.add(segment(x, y, (0, 0.02), (0, 0.4), 0.05), sheath, rise=0.05, bevel=0.05, level=0.1)
    c.add(box(x, y + 0.06, 0.13, 0.2, 0.04), plug, rise=0.08, bevel=0.06, level=0.1)
    c.add(box(x, y + 0.36, 0.085, 0.11, 0.01), ZINC, rise=0.06, bevel=0.03, shine=METAL, level=0.08)
    return 0.1


def _pulley(c: Canvas, p: Part) -> float:
    body, hub = p.colours[:2]
    c.add(circle(c.x, c.y, 0.92), body, rise=0.08, bevel=0.06, shine=SATIN if p.material != "nylon" else 0.4)
    c.emboss(ring(c.x, c.y, 0.55, 0.2), -0.08)
    for i in range(p.n):
        x, y = turned(c.x, c.y, i * 360 / p.n)
        c.add(
            segment(x, y, (0.3, 0), (0.74, 0), 0.08), body, rise=0.07, bevel=0.07, shine=SATIN if p.material != "nylon" else 0.4
        )
        a, b = turned(c.x, c.y, (i + 0.5) * 360 / p.n)
        c.cut(segment(a, b, (0.5, 0), (0.58, 0), 0.12))
    c.add(circle(c.x, c.y, 0.26), hub, rise=0.08, bevel=0.05, shine=METAL)
    c.emboss(ring(c.x, c.y, 0.84, 0.015), -0.04)
    c.cut(circle(c.x, c.y, 0.12))
    return 0.3


def _knob(c: Canvas, p: Part) -> float:
    """Knurled with a pointer for n > 12, else a star grip of n lobes."""
    body, mark = p.colours[:2]
    if p.n > 12:
        c.add(toothed(c.x, c.y, p.n, 0.82, 0.06, 1.0), body, rise=0.12, bevel=0.1, shine=PLASTIC)
        c.add(circle(c.x, c.y, 0.62), mixed(body, WHITE, 0.12), rise=0.12, bevel=0.2, shine=GLOSSY)
        c.paint(segment(c.x, c.y, (0, -0.22), (0, -0.72), 0.045), mark)
        c.add(circle(c.x, c.y, 0.26), ZINC, rise=0.02, bevel=0.03, shine=METAL)
        return 0.35
    wave = 0.72 + 0.16 * np.cos(np.arctan2(c.y, c.x) * p.n)
    c.add(((np.hypot(c.x, c.y) - wave) * 0.8).astype(np.float32), body, rise=0.2, bevel=0.24, shine=GLOSSY)
    c.add(circle(c.x, c.y, 0.28), mark, rise=0.05, bevel=0.05, shine=SATIN)
    c.add(ngon(c.x, c.y, 6, 0.14), mixed(mark, BLACK, 0.5), rise=-0.06, bevel=0.03, shine=SATIN)
    return 0.25


def _valve(c: Canvas, p: Part) -> float:
    body, lever = p.colours[:2]
    c.add(box(c.x, c.y - 0.2, 0.74, 0.2, 0.02), body, rise=0.2, bevel=0.2, shine=SATIN)
    for x in (-0.7, 0.7):
        c.add(box(c.x - x, c.y - 0.2, 0.2, 0.32, 0.03), body, rise=0.24, bevel=0.12, shine=SATIN, level=0.05)
        c.emboss(box(c.x - x, c.y - 0.2, 0.2, 0.02), -0.04)
    c.add(circle(c.x, c.y - 0.2, 0.36), body, rise=0.3, bevel=0.36, shine=SATIN, level=0.03)
    c.add(box(c.x, c.y + 0.2, 0.1, 0.18, 0.02), body, rise=0.1, bevel=0.1, shine=SATIN)
    c.add(box(c.x - 0.3, c.y + 0.44, 0.52, 0.12, 0.1), lever, rise=0.06, bevel=0.06, shine=GLOSSY, level=0.2)
    c.add(ngon(c.x, c.y + 0.44, 6, 0.1), ZINC, rise=0.06, bevel=0.04, shine=METAL)
    return 0.12


def _cell(c: Canvas, p: Part) -> float:
    jacket, band = p.colours[:2]
    if p.n == 9:
        for x, sides in ((-0.2, 24), (0.22, 6)):
            c.add(ngon(c.x - x, c.y + 0.82, sides, 0.13), ZINC, rise=0.08, bevel=0.05, shine=METAL)
        c.add(box(c.x, c.y - 0.1, 0.52, 0.78, 0.06), jacket, rise=0.1, bevel=0.08, shine=SATIN)
        c.paint(box(c.x, c.y + 0.6, 0.52, 0.14), band, shine=0.6)
        c.write("9V", (0, 0.12), 0.62, band)
        c.write("AMPERA", (0, 0.6), 0.22, WHITE)
        return 0.4
    c.add(box(c.x, c.y + 0.86, 0.12, 0.08, 0.02), ZINC, rise=0.12, bevel=0.12, shine=METAL)
    c.add(box(c.x, c.y - 0.06, 0.29, 0.86, 0.04), jacket, rise=0.28, bevel=0.29, shine=0.62)
    c.paint(box(c.x, c.y + 0.55, 0.3, 0.26), band, shine=0.62)
    c.paint(box(c.x, c.y - 0.88, 0.3, 0.05), ZINC, shine=METAL)
    c.write("VOLTANO", (0, 0.22), 0.24, WHITE, 90)
    return 0.08


def _fuse(c: Canvas, p: Part) -> float:
    colour, cap = p.colours[:2]
    if p.n:  # blade fuse
        for x in (-0.36, 0.36):
            c.add(box(c.x - x, c.y - 0.5, 0.16, 0.42, 0.04), ZINC, rise=0.03, bevel=0.03, shine=METAL)
        c.add(box(c.x, c.y + 0.3, 0.8, 0.46, 0.1), colour, rise=0.12, bevel=0.08, shine=GLOSSY)
        c.emboss(box(c.x, c.y + 0.06, 0.5, 0.1), -0.05)
        c.write(str(p.n), (0, -0.4), 0.5, WHITE)
        return 0.2
    c.add(box(c.x, c.y, 0.24, 0.86, 0.03), mixed(colour, WHITE, 0.3), rise=0.24, bevel=0.24, shine=0.5)
    c.paint(box(c.x + 0.06, c.y, 0.035, 0.86), WHITE, strength=0.7)
    c.paint(segment(c.x, c.y, (0.06, -0.6), (-0.03, 0.6), 0.018), IRON)
    for y in (-0.68, 0.68):
        c.add(box(c.x, c.y - y, 0.28, 0.24, 0.04), cap, rise=0.27, bevel=0.28, shine=METAL, level=0.02)
    return 0.06


def _fan(c: Canvas, p: Part) -> float:
    frame, blade = p.colours[:2]
    c.add(box(c.x, c.y, 0.92, 0.92, 0.14), frame, rise=0.1, bevel=0.06, shine=PLASTIC)
    c.emboss(circle(c.x, c.y, 0.82), -0.08)
    c.paint(circle(c.x, c.y, 0.82), mixed(frame, BLACK, 0.75), shine=0.1)
    radius, angle = np.hypot(c.x, c.y), np.arctan2(c.y, c.x)
    swirl = np.mod((angle - radius * 1.1) * p.n / (2 * math.pi), 1)  # 0 … 1 across each blade
    edge = (np.maximum(swirl - 0.68, -swirl) * radius * 2 * math.pi / p.n).astype(np.float32)
    blades = np.maximum(edge, circle(c.x, c.y, 0.78))
    c.add(blades, blade, rise=0.03, bevel=0.04, shine=0.42)
    c.emboss(blades, 0.1 * swirl)
    c.add(circle(c.x, c.y, 0.3), frame, rise=0.08, bevel=0.06, shine=PLASTIC)
    c.paint(circle(c.x, c.y, 0.22), blade if blade != frame else WHITE)
    c.write("BREVA", (0, 0), 0.13, frame)
    for x in (-0.78, 0.78):
        for y in (-0.78, 0.78):
            c.cut(circle(c.x - x, c.y - y, 0.07))
    return 0.25


def _wheel(c: Canvas, p: Part) -> float:
    tyre, rim = p.colours[:2]
    c.add(circle(c.x, c.y, 0.92), tyre, rise=0.12, bevel=0.16, shine=0.18)
    c.emboss(ring(c.x, c.y, 0.82, 0.09), 0.02 * np.sin(np.arctan2(c.y, c.x) * 40))
    c.add(circle(c.x, c.y, 0.58), rim, rise=-0.05, bevel=0.06, shine=0.42)
    for i in range(p.n):
        x, y = turned(c.x, c.y, i * 360 / p.n)
        c.add(segment(x, y, (0.2, 0), (0.5, 0), 0.06), mixed(rim, WHITE, 0.2), rise=0.05, bevel=0.06, shine=0.42)
    c.add(circle(c.x, c.y, 0.22), ZINC, rise=0.08, bevel=0.04, shine=METAL)
    c.add(ngon(c.x, c.y, 6, 0.11), STEEL, rise=0.05, bevel=0.03, shine=METAL)
    return 0.3


def _tape(c: Canvas, p: Part) -> float:
    colour, core = p.colours[:2]
    c.add(circle(c.x, c.y, 0.9), colour, rise=0.06, bevel=0.04, shine=0.45)
    c.emboss(ring(c.x, c.y, 0.7, 0.18), 0.012 * np.sin(np.hypot(c.x, c.y) * 130))
    c.add(circle(c.x, c.y, 0.54), core, rise=0.02, bevel=0.03, shine=MATT)
    c.cut(circle(c.x, c.y, 0.46))
    x, y = turned(c.x, c.y, -20)
    c.add(box(x - 0.2, y + 0.72, 0.3, 0.09, 0.02), colour, rise=0.03, bevel=0.03, shine=0.45, level=0.04)
    return 0.4


def _spool(c: Canvas, p: Part) -> float:
    thread, flange = p.colours[:2]
    c.add(box(c.x, c.y, 0.5, 0.66), thread, rise=0.42, bevel=0.5, shine=SATIN if p.material == "copper" else 0.3)
    c.emboss(box(c.x, c.y, 0.5, 0.66), 0.02 * np.sin(c.y * 70 + c.x * 1.2))
    c.paint(np.maximum(box(c.x, c.y, 0.5, 0.66), np.sin(c.y * 70 + c.x * 1.2) * 0.02 + 0.012), mixed(thread, BLACK, 0.4))
    for y in (-0.76, 0.76):
        c.add(box(c.x, c.y - y, 0.72, 0.13, 0.06), flange, rise=0.4, bevel=0.5, shine=PLASTIC, level=0.03)
    return 0.06


def _bulb(c: Canvas, p: Part) -> float:
    glass, collar = p.colours[:2]
    c.add(box(c.x, c.y - 0.66, 0.24, 0.26, 0.05), ZINC, rise=0.24, bevel=0.24, shine=METAL)
    c.emboss(box(c.x, c.y - 0.62, 0.25, 0.2), 0.025 * np.sin(c.y * 60 + c.x * 3))
    c.add(
        np.maximum(box(c.x, c.y - 0.18, 0.44, 0.28), np.abs(c.x) - 0.32 + (c.y - 0.1) * 0.3),
        collar,
        rise=0.3,
        bevel=0.4,
        shine=PLASTIC,
    )
    c.add(np.maximum(circle(c.x, c.y + 0.32, 0.56), c.y - 0.02), glass, rise=0.45, bevel=0.56, shine=0.5, level=0.03)
    return 0.06


def _button(c: Canvas, p: Part) -> float:
    cap, bezel = p.colours[:2]
    c.add(circle(c.x, c.y, 0.9), bezel, rise=0.1, bevel=0.08, shine=SATIN if p.n else PLASTIC)
    c.emboss(circle(c.x, c.y, 0.68), -0.1)
    c.add(circle(c.x, c.y, 0.63), cap, rise=0.24, bevel=0.63, shine=GLOSSY)
    if p.n:
        c.write("STOP" if p.n == 1 else "I", (0, 0), 0.34 if p.n == 1 else 0.6, WHITE)
    return 0.3


def _gauge(c: Canvas, p: Part) -> float:
    bezel, needle = p.colours[:2]
    c.add(box(c.x, c.y - 0.79, 0.14, 0.16, 0.02), BRASS, rise=0.14, bevel=0.14, shine=SATIN)
    c.add(circle(c.x, c.y + 0.12, 0.82), bezel, rise=0.1, bevel=0.1, shine=METAL)
    c.add(circle(c.x, c.y + 0.12, 0.68), WHITE, rise=-0.06, bevel=0.03, shine=0.4)
    for i in range(11):
        x, y = turned(c.x, c.y + 0.12, 135 + 27 * i)
        long = 0.12 if i % 5 == 0 else 0.06
        c.paint(box(x - 0.62 + long, y, long, 0.018), BLACK)
    x, y = turned(c.x, c.y + 0.12, 245)
    c.paint(segment(x, y, (-0.1, 0), (0.5, 0), 0.03), needle)
    c.add(circle(c.x, c.y + 0.12, 0.09), BLACK, rise=0.05, bevel=0.04)
    c.write("bar", (0, 0.2), 0.18, BLACK)
    return 0.3


def _oring(c: Canvas, p: Part) -> float:
    c.add(ring(c.x, c.y, 0.72, 0.15), p.colours[0], rise=0.15, bevel=0.15, shine=0.42)
    return 0.1


def _rocker(c: Canvas, p: Part) -> float:
    frame, paddle = p.colours[:2]
    c.add(box(c.x, c.y, 0.6, 0.9, 0.08), frame, rise=0.09, bevel=0.07, shine=PLASTIC)
    c.add(box(c.x, c.y, 0.42, 0.7, 0.03), paddle, rise=0.03, bevel=0.03, shine=GLOSSY)
    c.emboss(box(c.x, c.y, 0.42, 0.7), np.abs(c.y) * 0.28)
    c.write("I", (0, -0.36), 0.4, WHITE)
    c.paint(ring(c.x, c.y - 0.36, 0.12, 0.025), WHITE)
    return 0.3


def _heatsink(c: Canvas, p: Part) -> float:
    c.add(box(c.x, c.y, 0.9, 0.72, 0.02), mixed(p.colours[0], BLACK, 0.45), rise=0.04, bevel=0.03, shine=0.65)
    for i in range(p.n):
        x = (i - (p.n - 1) / 2) * 1.72 / (p.n - 1)
        fin = box(c.x - x, c.y, 0.036, 0.72, 0.01)
        c.add(np.maximum(fin, -box(c.x, c.y, 1.0, 0.06)), p.colours[0], rise=0.12, bevel=0.035, shine=0.68)
    c.add(segment(c.x, c.y, (-0.6, 0.0), (0.6, 0.0), 0.045), ZINC, rise=0.06, bevel=0.045, shine=METAL, level=0.1)
    return 0.35


def _motor(c: Canvas, p: Part) -> float:
    can, cap = p.colours[:2]
    c.add(box(c.x, c.y + 0.74, 0.06, 0.22, 0.01), ZINC, rise=0.06, bevel=0.06, shine=METAL)
    c.add(box(c.x, c.y + 0.52, 0.2, 0.14, 0.03), can, rise=0.18, bevel=0.18, shine=SATIN)
    c.add(box(c.x, c.y - 0.1, 0.5, 0.54, 0.06), can, rise=0.4, bevel=0.5, shine=SATIN)
    c.add(box(c.x, c.y - 0.62, 0.44, 0.18, 0.05), cap, rise=0.36, bevel=0.44, shine=PLASTIC, level=0.02)
    c.paint(box(c.x, c.y - 0.06, 0.5, 0.26), colour_of("#e9e4d4"), shine=0.25)
    c.write("12V", (0, -0.02), 0.28, BLACK)
    for x in (-0.22, 0.22):
        c.add(box(c.x - x, c.y - 0.86, 0.06, 0.1, 0.01), COPPER, rise=0.03, bevel=0.03, shine=SATIN)
    return 0.08


def _relay(c: Canvas, p: Part) -> float:
    body, ink = p.colours[:2]
    for x in (-0.5, -0.2, 0.2, 0.5):
        c.add(box(c.x - x, c.y - 0.8, 0.05, 0.14, 0.01), ZINC, rise=0.02, bevel=0.02, shine=METAL)
    c.add(box(c.x, c.y + 0.06, 0.78, 0.74, 0.05), body, rise=0.1, bevel=0.07, shine=0.45)
    c.emboss(box(c.x, c.y + 0.06, 0.6, 0.56, 0.04), 0.02)
    c.write("TARNO", (0, -0.34), 0.24, ink)
    c.write("10A 24V", (0, -0.08), 0.2, ink)
    c.paint(box(c.x, c.y - 0.26, 0.46, 0.012), ink)
    c.paint(segment(c.x, c.y, (-0.3, 0.48), (0.1, 0.36), 0.02), ink)
    c.paint(circle(c.x - 0.26, c.y - 0.46, 0.04), ink)
    return 0.5


def _drill(c: Canvas, p: Part) -> float:
    bit, shank = p.colours[:2]
    tip = np.maximum(box(c.x, c.y + 0.2, 0.13, 0.74), -c.y - 0.94 + np.abs(c.x) * 1.1)
    c.add(tip, bit, rise=0.13, bevel=0.13, shine=SATIN)
    wave = np.sin(c.y * 15 + c.x * 9)
    c.emboss(np.maximum(tip, c.y - 0.3), -0.06 * np.maximum(wave, 0))
    c.paint(np.maximum(np.maximum(tip, c.y - 0.3), (0.15 - wave) * np.float32(0.05)), mixed(bit, BLACK, 0.62))
    c.add(box(c.x, c.y - 0.68, 0.17, 0.26, 0.04), shank, rise=0.17, bevel=0.17, shine=SATIN)
    c.paint(box(c.x, c.y - 0.5, 0.17, 0.04), p.colours[2])
    return 0.05


def _hinge(c: Canvas, p: Part) -> float:
    body = p.colours[0]
    c.add(box(c.x, c.y, 0.9, 0.72, 0.08), body, rise=0.04, bevel=0.04, shine=SATIN)
    c.add(box(c.x, c.y, 0.11, 0.76, 0.02), body, rise=0.14, bevel=0.11, shine=SATIN)
    for y in (-0.3, 0.0, 0.3):
        c.emboss(box(c.x, c.y - y, 0.11, 0.02), -0.1)
        c.paint(box(c.x, c.y - y, 0.11, 0.015), mixed(body, BLACK, 0.6))
    for x in (-0.55, 0.55):
        for y in (-0.46, 0.0, 0.46):
            c.emboss(circle(c.x - x, c.y - y, 0.15), -0.03)
            c.cut(circle(c.x - x, c.y - y, 0.09))
    return 0.05


def _padlock(c: Canvas, p: Part) -> float:
    body, shackle = p.colours[:2]
    arch = np.where(c.y < -0.4, ring(c.x, c.y + 0.4, 0.36, 0.09), np.abs(np.abs(c.x) - 0.36) - 0.09)
    c.add(np.maximum(arch, c.y - 0.1).astype(np.float32), shackle, rise=0.09, bevel=0.09, shine=METAL)
    c.add(box(c.x, c.y - 0.38, 0.62, 0.5, 0.12), body, rise=0.12, bevel=0.09, shine=SATIN)
    c.add(circle(c.x, c.y - 0.34, 0.2), mixed(body, BLACK, 0.25), rise=0.02, bevel=0.03, shine=SATIN)
    c.paint(np.minimum(circle(c.x, c.y - 0.29, 0.06), box(c.x, c.y - 0.4, 0.025, 0.09)), BLACK)
    c.write("HOLM", (0, 0.7), 0.18, mixed(body, BLACK, 0.7))
    return 0.2


def _tube(c: Canvas, p: Part) -> float:
    """A squeezed tube of grease or glue."""
    body, cap, band = p.colours[:3]
    sides = np.abs(c.x) - 0.34 - np.clip(-c.y, -0.6, 0.9) * 0.12
    c.add(np.maximum(sides, np.abs(c.y + 0.18) - 0.68).astype(np.float32), body, rise=0.22, bevel=0.36, shine=GLOSSY)
    c.emboss(box(c.x, c.y + 0.8, 0.6, 0.07), 0.02 * np.sin(c.x * 60))
    c.paint(np.maximum(sides, np.abs(c.y + 0.1) - 0.34).astype(np.float32), band)
    c.write("GLYSS", (0, -0.1), 0.28, WHITE, 90)
    c.add(box(c.x, c.y - 0.54, 0.13, 0.06), body, rise=0.12, bevel=0.12)
    c.add(box(c.x, c.y - 0.74, 0.24, 0.18, 0.04), cap, rise=0.24, bevel=0.24, shine=PLASTIC)
    c.emboss(box(c.x, c.y - 0.74, 0.24, 0.14), 0.014 * np.sin(c.x * 80))
    return 0.06


_Draw: TypeAlias = Callable[[Canvas, Part], float]  # gives the thickness

# family, name, colours, n, size, material, price
_Kind: TypeAlias = tuple[_Draw, str, tuple[Colour | str, ...], int, float, str, float]
_KINDS: tuple[_Kind, ...] = (
    (_gear, "Spur gear 24T, steel", (STEEL, IRON), 24, 0.9, "steel", 8.4),
    (_gear, "Spur gear 16T, brass", (BRASS, BRASS), 16, 0.8, "brass", 11.9),
    (_gear, "Drive gear 12T, nylon", ("#d9542b", "#f0ece0"), 12, 0.85, "nylon", 3.2),
    (_bolt, "Hex bolt M10, zinc", (ZINC, ZINC), 11, 0.8, "steel", 0.35),
    (_bolt, "Hex bolt M12, black", ("#585c65", "#e0b23a"), 8, 0.9, "steel", 0.6),
    (_nut, "Hex nut M16, brass", (BRASS, "#8a6a22"), 6, 0.65, "brass", 0.9),
    (_nut, "Lock nut M12, blue insert", (ZINC, "#2f66c8"), 6, 0.62, "steel", 0.4),
    (_washer, "Tooth washer A12", (STEEL,), 14, 0.66, "steel", 0.15),
    (_washer, "Copper washer 18 mm", (COPPER,), 0, 0.62, "copper", 0.25),
    (_bearing, "Ball bearing 608, open", (STEEL, "#4a3a24"), 9, 0.78, "steel", 4.1),
    (_bearing, "Ball bearing 6204, sealed", (STEEL, "#1f4fa8"), 0, 0.88, "steel", 5.6),
    (_corner_bracket, "Corner bracket 90", (ZINC,), 0, 0.95, "steel", 1.3),
    (_corner_bracket, "Corner bracket, red", ("#c33a34",), 0, 0.9, "aluminium", 2.1),
    (_strip, "Perforated strip, orange", ("#ef8a24",), 5, 0.95, "steel", 1.1),
    (_spring, "Compression spring 12 mm", (STEEL,), 9, 0.8, "steel", 0.8),
    (_spring, "Die spring, green", ("#2f9b57",), 7, 0.9, "alloy steel", 2.9),
    (_hose, "Air hose 8 mm, blue", ("#2d7fd3", "#bfe0ff"), 3, 1.1, "polyurethane", 14.5),
    (_hose, "Water hose, yellow", ("#eec52f", "#2f8a4a"), 3, 1.15, "PVC", 12.0),
    (_carton, "Carton No 7, taped", (CARD, "#a87b43", "#5a3d1e"), 1, 1.15, "cardboard", 6.5),
    (_carton, "Velta filter box", ("#f3f1ea", "#2aa7a0", "#14595a"), 2, 1.05, "cardboard", 9.8),
    (_carton, "Pellan screws, box of 100", ("#28457f", "#f2b632", "#12254a"), 3, 1.05, "cardboard", 7.2),
    (_carton, "Korva nuts, blister", ("#e9e6df", "#c2306b", "#44485a"), 4, 1.05, "cardboard", 4.4),
    (_bottle, "Lumo oil 250 ml", ("#e8b62b", "#c1272d", "#fbf6e6"), 1, 1.1, "HDPE", 5.9),
    (_bottle, "Fixo glue, white", ("#f1efe8", "#2f5fc4", "#dbe7fb"), 2, 1.0, "HDPE", 3.7),
    (_bottle, "Neva cleaner spray", ("#3aa1c9", "#f4f4f0", "#17456b"), 3, 1.1, "PET", 4.9),
    (_tube, "Glyss grease tube", ("#e4e6e8", "#31353c", "#6a3fb0"), 0, 1.0, "aluminium", 6.3),
    (_chip, "Timer NW 555, DIP-14", ("#2b2d31", "#c9ccd0"), 14, 0.7, "epoxy", 0.7),
    (_chip, "Controller AX-77", ("#33363c", "#dcdfe3"), 48, 0.78, "epoxy", 6.9),
    (_board, "Relay board, green", ("#1f7a45", "#24262b"), 4, 1.0, "FR4", 13.2),
    (_board, "Memory module, blue", ("#2347a0", "#25272c"), 8, 1.05, "FR4", 29.0),
    (_plug, "D-plug 15 pins", (ZINC, "#2a56b5"), 15, 0.9, "steel", 2.4),
    (_terminal, "Terminal block, 5 ways", ("#3fa65a", ZINC), 5, 0.85, "polyamide", 1.9),
    (_can, "Capacitor 470 uF", ("#243a78", "#c8d2e6"), 0, 0.85, "aluminium", 0.9),
    (_resistor, "Resistor 2W, tan", ("#d9bd8a", "#8a4a20", "#2b2b2b", "#c8322b", "#c9a227"), 4, 0.8, "carbon", 0.1),
    (_cable, "USB cable, white", ("#dde2e8", "#5b6068"), 4, 1.05, "PVC", 4.2),
    (_cable, "Patch cable, magenta", ("#c4378f", "#e8e6ea"), 4, 1.05, "PVC", 3.6),
    (_pulley, "Belt pulley, 5 spokes", ("#9aa3ae", BRASS), 5, 1.0, "aluminium", 12.7),
    (_knob, "Dial knob, knurled", ("#33353b", "#ff7a1a"), 40, 0.75, "ABS", 1.6),
    (_knob, "Star grip, red", ("#cf2f33", ZINC), 5, 0.82, "ABS", 2.2),
    (_valve, "Ball valve, red lever", (BRASS, "#d32f2f"), 0, 1.05, "brass", 16.4),
    (_cell, "Cell AA Voltano", ("#26282d", "#c9803a"), 1, 0.75, "alkaline", 0.9),
    (_cell, "Block battery 9V", ("#b9bec7", "#a8211f"), 9, 0.8, "alkaline", 3.9),
    (_fuse, "Blade fuse 20 A", ("#f0c419", ZINC), 20, 0.62, "polyamide", 0.3),
    (_fuse, "Glass fuse 2 A", ("#cfe6ea", ZINC), 0, 0.62, "glass", 0.2),
    (_fan, "Fan 80 mm, teal blades", ("#2d2f35", "#34b3a6"), 7, 1.05, "PBT", 8.8),
    (_wheel, "Wheel 75 mm, amber", ("#3a3a3f", "#f0a030"), 6, 1.0, "rubber", 6.2),
    (_tape, "Marking tape, violet", ("#7a4bc0", "#c8a878"), 0, 0.95, "PVC", 2.5),
    (_spool, "Copper wire spool", (COPPER, "#2f3238"), 0, 0.95, "copper", 17.5),
    (_spool, "Thread spool, pink", ("#e2688f", "#efe2c4"), 0, 0.9, "polyester", 3.3),
    (_bulb, "LED bulb E27", ("#fbf4da", "#e6e8ea"), 0, 0.95, "glass", 5.1),
    (_button, "Stop button", ("#d4252b", "#f0c62e"), 1, 0.85, "ABS", 7.7),
    (_button, "Push button, green", ("#26a65b", "#c4c9cf"), 2, 0.72, "ABS", 3.1),
    (_gauge, "Pressure gauge 10 bar", (STEEL, "#d0342c"), 0, 0.95, "steel", 15.8),
    (_oring, "O-ring 30 mm", ("#3a3336",), 0, 0.7, "rubber", 0.3),
    (_rocker, "Rocker switch, red", ("#2b2d32", "#d63a2f"), 0, 0.72, "ABS", 1.4),
    (_heatsink, "Heat sink, 12 fins", ("#2f7fb8",), 12, 0.9, "aluminium", 4.6),
    (_motor, "Motor 12 V", ("#a9b0ba", "#2e3036"), 0, 0.95, "steel", 9.4),
    (_relay, "Relay Tarno 24 V", ("#3d8fe0", "#f2f6fb"), 0, 0.75, "polycarbonate", 3.8),
    (_drill, "Drill bit 12 mm", ("#d9b45a", "#8f959e", "#2b5fb4"), 0, 0.95, "tool steel", 5.4),
    (_hinge, "Flat hinge, brass", (BRASS,), 0, 0.85, "brass", 2.8),
    (_padlock, "Padlock Holm", ("#d8a93c", ZINC), 0, 0.9, "brass", 13.9),
)
_DRAW: dict[str, _Draw] = {draw.__name__.lstrip("_"): draw for draw, *_ in _KINDS}


def catalogue(seed: int = 0) -> tuple[Part, ...]:
    """All kinds of parts. The looks stay alike from seed to seed; numbers, prices, shelves and shades of colour differ."""
    rng = np.random.default_rng([seed, 1])
    numbers = rng.permutation(np.arange(1000, 10000))[: len(_KINDS)]
    parts = []
    for number, (draw, name, colours, n, size, material, price) in zip(numbers, _KINDS, strict=True):
        family = draw.__name__.lstrip("_")
        shades = tuple(_shaded(colour_of(c) if isinstance(c, str) else c, rng) for c in colours)
        sku = f"{family[:3].upper()}-{number}"
        shelf = f"{rng.integers(1, 9)}-{'ABCDEF'[rng.integers(6)]}-{rng.integers(1, 21):02d}"
        parts.append(Part(sku, name, family, shades, n, size, material, round(price * float(rng.uniform(0.9, 1.1)), 2), shelf))
    return tuple(parts)


def _shaded(colour: Colour, rng: np.random.Generator) -> Colour:
    hue, light, saturation = colorsys.rgb_to_hls(*colour)
    return colorsys.hls_to_rgb(
        (hue + rng.uniform(-0.012, 0.012)) % 1, light * rng.uniform(0.96, 1.04) if light < 0.95 else light, saturation
    )


@lru_cache(maxsize=256)  # a pure function of a frozen record, some 30 ms a call: remembered, or a picture would cost a second
def sprite_of(part: Part) -> Sprite:
    """What a part looks like."""
    canvas = Canvas()
    thickness = _DRAW[part.family](canvas, part)
    return canvas.sprite(thickness=thickness)
