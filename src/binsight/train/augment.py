"""Augmentation that keeps counts true: every item stays in the picture, and none is doubled.

Geometry flips every other picture, and turns, stretches and shifts every other one as a whole, zoomed out far enough that its
four corners stay inside; what lies beyond is the picture's own edge, drawn out, not mirrored. The rest keep the scale that
pictures have when they are counted. Colour, contrast, blur and an erased patch are for small data. Where nothing is counted,
pictures may be cropped, too. Everything is a pure function of uniform draws: a run can be repeated, resumed and shared out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 28  # uniform numbers in [0, 1) that one picture takes
_TURN = math.radians(8)
_MOVED_SHARE = 0.5
_STRETCH, _SHIFT, _ZOOM = 0.08, 0.04, 0.12
_ERASED = (0.08, 0.22)  # side of the erased patch over the picture's
_ASPECT = 4 / 3  # of a crop, at most, over the picture's


def augment(planes: Tensor, draws: Tensor, *, strength: float = 1.0, crop: float = 1.0) -> Tensor:
    """Changed pictures. planes: float (n, 3, h, w) in [0, 255]; draws: (n, DRAWS) in [0, 1); strength: 0 for flips only.

    crop: smallest share of its area that is kept of a picture; below 1 items get lost.
    """
    draws = draws.to(planes)
    places = affine(draws, strength)
    planes = _moved(planes, places if crop == 1 else _inside(places, draws[:, 24:28], crop))
    if strength == 0:
        return planes
    planes = _coloured(planes, draws[:, 7:14], strength)
    planes = _blurred(planes, draws[:, 14:16], strength)
    return _erased(planes, draws[:, 16:24], strength)


def affine(draws: Tensor, strength: float = 1.0) -> Tensor:
    """(n, 2, 3): where each place of the new picture lies in the old one, both from −1 to 1.

    The old picture's corners come to lie inside the new one: zoomed out by what turning, stretching and shifting need.
    """
    signed = 2 * draws[:, :6] - 1
    change = torch.where(draws[:, 6] < _MOVED_SHARE, strength, 0.0)
    angle, stretch = change * _TURN * signed[:, 0], torch.exp(change * _STRETCH * signed[:, 1])
    shift = change[:, None] * _SHIFT * signed[:, 2:4]  # of half the picture's side
    flip = torch.where(signed[:, 4] < 0, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # Old corner (±1, ±1) → new place R·S·corner/zoom + shift, which has to stay within ±1.
    reach = torch.maximum(stretch * cosine + sine.abs() / stretch, stretch * sine.abs() + cosine / stretch)
    zoom = reach / (1 - shift.abs().amax(1)) * (1 + change * _ZOOM * draws[:, 5])
    forward = (
        torch.stack(
            [
                torch.stack([flip * stretch * cosine, -sine / stretch], 1),
                torch.stack([flip * stretch * sine, cosine / stretch], 1),
            ],
            1,
        )
        / zoom[:, None, None]
    )  # (n, 2, 2) old → new
    back = torch.linalg.inv(forward.float()).to(draws)
    return torch.cat([back, -(back @ shift[:, :, None])], dim=2)


def _inside(places: Tensor, draws: Tensor, crop: float) -> Tensor:
    """(n, 2, 3): as `places`, then a crop of any area from `crop` to the whole (Szegedy et al. 2014, arXiv:1409.4842)."""
    area = crop + (1 - crop) * draws[:, 0]
    aspect = torch.exp(math.log(_ASPECT) * (2 * draws[:, 1] - 1))
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1).clamp(max=1)
    middle = (1 - sides) * (2 * draws[:, 2:4] - 1)
    turn = places[:, :, :2]
    return torch.cat([turn * sides[:, None, :], places[:, :, 2:] + turn @ middle[:, :, None]], dim=2)


def _moved(planes: Tensor, places: Tensor) -> Tensor:
    grid = functional.affine_grid(places, list(planes.shape), align_corners=False)
    return functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _coloured(planes: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Brightness, contrast, saturation and the light's colour."""
    factors = 1 + strength * (2 * draws - 1) * torch.tensor([0.3, 0.3, 0.4, 0.1, 0.1, 0.1, 0.0]).to(draws)
    brightness, contrast, saturation = (factors[:, place, None, None, None] for place in range(3))
    planes = planes * brightness * factors[:, 3:6, None, None]
    middle = planes.mean((1, 2, 3), keepdim=True)
    planes = (planes - middle) * contrast + middle
    grey = planes.mean(1, keepdim=True)
    return ((planes - grey) * saturation + grey).clamp(0, 255)


def _blurred(planes: Tensor, draws: Tensor, strength: float) -> Tensor:
    """One picture in four a little out of focus."""
    share = torch.where(draws[:, 0] < 0.25 * strength, draws[:, 1], 0.0)
    chosen = share.nonzero()[:, 0]
    if not len(chosen):
        return planes
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]).to(planes) / 16
    kernel = (line[:, None] * line).expand(3, 1, 5, 5)
    sharp = planes[chosen]
    soft = functional.conv2d(functional.pad(sharp, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    return planes.index_copy(0, chosen, sharp.lerp(soft, share[chosen, None, None, None]))


def _erased(planes: Tensor, draws: Tensor, strength: float) -> Tensor:
    """In one picture in four a small patch of one colour, smaller than most items: as tape and labels hide parts of them."""
    height, width = planes.shape[2:]
    low, high = _ERASED
    sides = (low + (high - low) * draws[:, 1:3]) * torch.tensor([height, width]).to(draws)  # (n, 2)
    starts = draws[:, 3:5] * (torch.tensor([height, width]).to(draws) - sides)
    down, across = torch.arange(height).to(draws), torch.arange(width).to(draws)
    rows = (down >= starts[:, :1]) & (down < starts[:, :1] + sides[:, :1])  # (n, h)
    columns = (across >= starts[:, 1:]) & (across < starts[:, 1:] + sides[:, 1:])  # (n, w)
    is_erased = (draws[:, 0] < 0.25 * strength)[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return torch.where(is_erased[:, None], 255 * draws[:, 5:8, None, None], planes)
