"""The painter: what a shape changes on a canvas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from binsight.data.photo import Canvas, box, circle

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def face_of(canvas: Canvas) -> NDArray[np.float64]:
    """(4, 64, 64): red, green, blue and cover in 0 … 1."""
    return np.asarray(canvas.sprite(thickness=0.1).faces[0], np.float64).transpose(2, 0, 1) / 255


@pytest.mark.parametrize(("x", "y", "share"), [(0.0, 0.0, 1.0), (0.3, -0.5, 1.0), (1.0, 0.0, 0.5), (-1.0, 1.0, 0.25)])
def test_a_shape_covers_its_area_also_where_the_rim_cuts_it(x: float, y: float, share: float) -> None:
    canvas = Canvas(64)
    canvas.add(circle(canvas.x - x, canvas.y - y, 0.4), RED)
    _, _, _, cover = face_of(canvas)
    assert 4 * cover.mean() == pytest.approx(share * np.pi * 0.4**2, rel=0.01)


def test_a_shape_beyond_the_rim_changes_nothing() -> None:
    plain, canvas = Canvas(64), Canvas(64)
    for one in (plain, canvas):
        one.add(box(one.x, one.y, 0.5, 0.5), RED)
    far = circle(canvas.x - 3, canvas.y, 0.4)
    canvas.add(far, BLUE)
    canvas.paint(far, BLUE, shine=1.0)
    canvas.emboss(far, 0.3)
    canvas.cut(far)
    canvas.write("", (0, 0), 0.3, BLUE)
    sprites = canvas.sprite(thickness=0.1), plain.sprite(thickness=0.1)
    for mine, other in zip(*((*one.faces, *one.details) for one in sprites), strict=True):
        assert mine.tobytes() == other.tobytes()


def test_paint_relief_and_a_hole_change_what_lies_there_to_their_edges_and_no_further() -> None:
    canvas = Canvas(64)
    canvas.add(box(canvas.x, canvas.y, 0.9, 0.9), RED, rise=0.0)
    canvas.paint(box(canvas.x - 0.5, canvas.y, 0.2, 0.5), BLUE)
    canvas.cut(box(canvas.x + 0.5, canvas.y, 0.2, 0.5))
    red, _, blue, cover = face_of(canvas)
    painted = (np.abs(canvas.x - 0.5) < 0.2) & (np.abs(canvas.y) < 0.5)
    hole = (np.abs(canvas.x + 0.5) < 0.2) & (np.abs(canvas.y) < 0.5)
    near = [np.abs(np.maximum(np.abs(canvas.x - x) - 0.2, np.abs(canvas.y) - 0.5)) < 0.03 for x in (0.5, -0.5)]
    inside = (np.abs(canvas.x) < 0.85) & (np.abs(canvas.y) < 0.85) & ~near[0] & ~near[1]
    assert np.array_equal(blue[inside] > 0.5, painted[inside])
    assert np.array_equal(red[inside] > 0.5, ~painted[inside])
    assert np.array_equal(cover[inside] < 0.5, hole[inside])


def test_a_relief_may_differ_from_point_to_point() -> None:
    """Its slope shows in the normals: a ramp that rises to the right, in the right half alone."""
    canvas = Canvas(64)
    canvas.add(box(canvas.x, canvas.y, 0.9, 0.9), RED, rise=0.0)
    canvas.emboss(box(canvas.x - 0.5, canvas.y, 0.35, 0.35), 0.5 * canvas.x)
    normals = np.asarray(canvas.sprite(thickness=0.1).details[0], np.int64)[:, :, 0] - 128
    ramp = (np.abs(canvas.x - 0.5) < 0.25) & (np.abs(canvas.y) < 0.25)
    left = canvas.x < 0
    assert (normals[ramp] < -40).all()
    assert (np.abs(normals[left]) <= 2).all()
