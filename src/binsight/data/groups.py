"""Which pictures belong together: by the products they share, and as shots of one bin, before and after."""

from __future__ import annotations

from collections.abc import Iterable

from binsight.data.labelled import LabelledPicture


def product_groups(pictures: Iterable[LabelledPicture]) -> list[str]:
    """The group of each picture: pictures joined by a chain of shared products (or of one `group` in a manifest) have one.

    A group is named by its first product in alphabetical order; a picture without products is a group by itself, named by
    its uri.

    >>> held = {"a": ("X",), "b": ("X", "Y"), "c": ("Y",), "d": ()}
    >>> product_groups([LabelledPicture(uri, 1, None, products) for uri, products in held.items()])
    ['X', 'X', 'X', 'd']
    """
    parent: dict[str, str] = {}

    def top(one: str) -> str:
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    ties = [ties_of(picture) for picture in pictures]
    for names in ties:
        first = top(names[0])
        for name in names[1:]:
            other = top(name)
            first, other = min(first, other), max(first, other)  # the least name stays on top
            parent[other] = first
    return [top(names[0]) for names in ties]


def ties_of(picture: LabelledPicture) -> list[str]:
    """What joins a picture to others: its products and its manifest's group; its own uri where it has neither."""
    ties = [*picture.products, *([f"group {picture.group}"] if picture.group is not None else [])]
    return ties or [picture.uri]


def sister_shots(pictures: Iterable[LabelledPicture]) -> dict[str, tuple[str, ...]]:
    """For each picture that has them, the pictures of the last and the next number that share a product with it.

    Numbers are those of file names, in one folder and of one way to write them: `1.jpg` and `00002.jpg` are no neighbours.
    """
    by_number: dict[tuple[str, str, int], LabelledPicture] = {}
    for picture in pictures:
        folder, _, name = picture.uri.rpartition("/")
        stem = name.partition(".")[0]
        if stem.isascii() and stem.isdigit():
            by_number[folder, _series(stem), int(stem)] = picture
    found: dict[str, tuple[str, ...]] = {}
    for (folder, series, number), picture in by_number.items():
        beside = (by_number.get((folder, series, other)) for other in (number - 1, number + 1))
        uris = tuple(one.uri for one in beside if one is not None and not set(one.products).isdisjoint(picture.products))
        if uris:
            found[picture.uri] = uris
    return found


def _series(stem: str) -> str:
    """ABID counts 00001 … 99999, 100000 …; besides, there are photos 1 … 1200 of a series of their own."""
    if len(stem) > WIDTH and not stem.startswith("0"):
        return f"width {WIDTH}"
    return f"width {len(stem)}" if stem.startswith("0") or len(stem) == WIDTH else "unpadded"


WIDTH = 5  # digits of a padded stem
