"""What the notebooks look at: your bins, or made-up ones that are drawn once and then kept; and models for either.

BINSIGHT_DATA names a folder with `abid/`: photos and records in the layout of the Amazon Bin Image Dataset. Without it, bins
are drawn. BINSIGHT_WEIGHTS names a folder with `mobilenetv2_100/`, a timm model, for machines that reach no model hub.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from binsight.data.labelled import LabelledPicture
from binsight.data.parts import Part, catalogue
from binsight.data.splits import product_groups
from binsight.data.warehouse import before_after, bin_photo, fill_bins

DATA, WEIGHTS = os.environ.get("BINSIGHT_DATA"), os.environ.get("BINSIGHT_WEIGHTS")
warnings.filterwarnings("ignore", "IProgress not found")  # tqdm would like a widget; nothing here shows a bar
MODELS = Path(os.path.relpath(Path(__file__).resolve().parents[1] / "models"))
_FAMILIES, _BINS, _KINDS = 80, 3, 3  # bins of one family hold some of the same kinds of parts
_SIDE_PX = 128


def place() -> Path:
    """A folder of the user's cache, where what is drawn is kept; deleting it is safe."""
    cache = os.environ.get("BINSIGHT_CACHE") or Path.home() / ".cache" / "binsight"
    folder = Path(cache) / ("notebooks-real" if DATA else "notebooks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def bins() -> str:
    """A folder of bins: photos, and what is recorded of each."""
    return str(Path(DATA) / "abid") if DATA else str(_kept("bins", _draw))


def counter() -> str:
    """A model of those that ship with binsight: it learned to count in photos of bins, or in other drawn bins."""
    return f"local-dir:{MODELS / ('bins-mobilenetv2' if DATA else 'drawn-bins')}"


def start() -> dict[str, Any]:
    """What training starts from, and the side of its pictures: for photos ImageNet's MobileNetV2, else `counter`'s model."""
    if DATA:
        return {"backbone": f"local-dir:{WEIGHTS}/mobilenetv2_100" if WEIGHTS else "mobilenetv2_100", "size": 160}
    return {"backbone": counter(), "size": 96}


def some(pictures: Sequence[LabelledPicture], most: int) -> tuple[LabelledPicture, ...]:
    """At most so many of them, product groups whole, chosen by a seed."""
    groups = product_groups(pictures)
    names = sorted(set(groups))
    np.random.default_rng(0).shuffle(names)
    rank = {name: place for place, name in enumerate(names)}
    order = sorted(range(len(pictures)), key=lambda one: rank[groups[one]])[:most]
    return tuple(pictures[one] for one in sorted(order))


def show(pictures: Iterable[Any], titles: Iterable[str], *, columns: int = 6, colours: Sequence[str] = ()) -> Figure:
    """Pictures (paths or arrays) in rows, each under its title. colours: of the titles, all black by default."""
    shown = [Image.open(one) if isinstance(one, str | Path) else one for one in pictures]
    rows = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(1.75 * columns, 2.0 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (axis, picture, title) in enumerate(zip(axes.flat, shown, titles, strict=False)):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8, color=colours[number] if colours else "black")
    return figure


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once; of two notebooks that make it at once, the first one's is kept."""
    folder = place() / name
    if not folder.exists():
        with TemporaryDirectory(dir=place()) as unfinished:
            make(Path(unfinished) / name)
            if not folder.exists():
                (Path(unfinished) / name).rename(folder)
    return folder


def _draw(folder: Path) -> None:
    """Bins in families, each before and after an item was taken, under neighbouring numbers, as in the real set."""
    for kind in ("bin-images", "metadata"):
        (folder / kind).mkdir(parents=True)
    number, parts = 0, catalogue(0)
    for family in range(_FAMILIES):
        rng = np.random.default_rng([0, family])
        kinds = [parts[one] for one in rng.choice(len(parts), _KINDS, replace=False)]
        for bin_ in fill_bins(kinds, _BINS, seed=family):
            shots = before_after(bin_, rng, size_px=_SIDE_PX)[:2] if bin_.count else [bin_photo(bin_, rng, size_px=_SIDE_PX)]
            for shot in shots:
                number += 1
                shot.image.save(folder / "bin-images" / f"{number:05}.jpg", quality=88)
                (folder / "metadata" / f"{number:05}.json").write_text(json.dumps(_record(family, shot.items)))


def _record(family: int, items: Sequence[Part]) -> dict[str, Any]:  # JSON
    """What the books say of a bin, in the form of the real set."""
    recorded: dict[str, dict[str, Any]] = {}
    for part in items:
        sku = f"{part.sku}-{family:03}"
        recorded.setdefault(sku, {"asin": sku, "name": part.name, "quantity": 0})["quantity"] += 1
    return {"BIN_FCSKU_DATA": recorded, "EXPECTED_QUANTITY": len(items)}
