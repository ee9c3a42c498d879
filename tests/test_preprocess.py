"""preprocess: the pixels are Pillow's and timm's to within rounding, however the picture came, and settings are checked."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from binsight import preprocess
from binsight.errors import BadImage, BadSettings
from binsight.images import Limits, Pixels, load
from binsight.preprocess import Fit, Interpolation, Preprocess
from tests import hostile

FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CONFIG = {  # of timm's resnet50.a1_in1k
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.95,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def difference(one: Pixels, other: Pixels) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


def timm_pixels(pixels: Pixels, made: Preprocess) -> Pixels:
    """By timm's own evaluation transform: the independent reference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that timm imports
        from timm.data.transforms_factory import transforms_imagenet_eval

    modes = {"crop": "center", "squash": "squash", "pad": "border"}
    transform = transforms_imagenet_eval(
        img_size=made.size,
        crop_pct=made.crop_pct,
        crop_mode=modes[made.fit],
        interpolation=made.interpolation,
        mean=made.mean,
        std=made.std,
        normalize=False,
    )
    return np.asarray(transform(Image.fromarray(pixels)).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(500, 450), (333, 700), (60, 90), (224, 300), (1, 1), (3000, 2)])
def test_squashed_pixels_are_those_of_pillow(shape: tuple[int, int], interpolation: Interpolation) -> None:
    photo = hostile.photo(*shape)
    expected = np.asarray(Image.fromarray(photo).resize((224, 192), FILTERS[interpolation]))
    got = Preprocess((192, 224), interpolation=interpolation).pixels(photo)
    assert difference(got, expected) < 0.3


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(224, 224), (128, 256)])
@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("shape", [(500, 451), (333, 700), (224, 224), (60, 90), (1000, 37)])
def test_every_fit_is_timms_crop_mode(shape: tuple[int, int], crop_pct: float, size: tuple[int, int], fit: Fit) -> None:
    photo = hostile.photo(*shape)
    made = Preprocess(size, fit, crop_pct)
    assert difference(made.pixels(photo), timm_pixels(photo, made)) < 0.3


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    photo = hostile.photo(224, 224)
    for fit in ("squash", "crop", "pad"):
        got = Preprocess((224, 224), fit).pixels(photo)
        assert np.array_equal(got, photo)
        assert got is not photo


def test_a_crop_loses_the_margins_and_a_squash_does_not() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 200  # the middle third: all that a square crop sees
    assert (Preprocess((50, 50), "crop").pixels(wide)[:, 2:-2] == 200).all()
    assert Preprocess((50, 50), "squash").pixels(wide)[25, ::12, 0].tolist() == [0, 0, 200, 0, 0]


def test_a_pad_surrounds_the_picture_with_the_mean() -> None:
    made = Preprocess((8, 8), "pad", mean=(0.5, 0.25, 1.0), std=(0.5, 0.5, 0.5))
    got = made.pixels(np.full((20, 40, 3), 7, np.uint8))
    assert got[2:6].tolist() == np.full((4, 8, 3), 7).tolist()
    for row in (0, 1, 6, 7):
        assert got[row].tolist() == [[128, 64, 255]] * 8
    assert np.abs(made.normalised(got[None])[0, :, 0]).max() < 0.005


def test_all_ways_in_give_one_set_of_pixels(tmp_path: Path) -> None:
    data = hostile.encoded(hostile.photo(300, 260), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    made = Preprocess((224, 224))
    wanted = made.pixels(data)
    for image in (path, str(path), bytearray(data), Image.open(path), np.asarray(Image.open(path))):
        assert np.array_equal(made.pixels(image), wanted)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(565, 571), (900, 1301), (2000, 1500)])
def test_a_large_jpeg_decoded_smaller_differs_by_less_than_one_level(
    shape: tuple[int, int], interpolation: Interpolation
) -> None:
    data = hostile.encoded(hostile.photo(*shape), "JPEG")
    full = np.asarray(Image.open(io.BytesIO(data)).resize((224, 224), FILTERS[interpolation]))
    assert difference(Preprocess((224, 224), interpolation=interpolation).pixels(data), full) < 1.0


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_large_jpeg_is_turned_before_it_is_fitted(turn: int) -> None:
    data = hostile.encoded(hostile.photo(901, 1301), "JPEG", exif=hostile.exif(turn))
    upright = load(data)
    for fit in ("squash", "crop", "pad"):
        made = Preprocess((160, 200), fit, 0.9)
        assert difference(made.pixels(data), timm_pixels(upright, made)) < 1.0


def test_without_the_fast_resampler_pillow_gives_almost_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [hostile.photo(*shape) for shape in ((500, 450), (333, 700), (60, 90))]
    for fit in ("squash", "crop", "pad"):
        for interpolation in FILTERS:
            made = Preprocess((224, 192), fit, 0.9, interpolation=interpolation)
            fast = [made.pixels(photo) for photo in photos]
            with monkeypatch.context() as patch:
                patch.setattr(preprocess, "resizer", None)
                slow = [made.pixels(photo) for photo in photos]
            for one, other in zip(fast, slow, strict=True):
                assert difference(one, other) < 0.3


_ANY_SHAPE = """
import random, sys
import numpy as np
from binsight.preprocess import Preprocess
rng = random.Random(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, 600_000, np.uint8)
for _ in range(int(sys.argv[2])):
    height, width = (rng.randint(1, rng.choice((5, 50, 440))) for _ in range(2))
    if rng.random() < 0.05:
        height, width = rng.choice(((1, 30_000), (30_000, 1), (3, 9_999)))
    size = tuple(rng.randint(1, rng.choice((3, 40, 260))) for _ in range(2))
    fit, filter = rng.choice(("crop", "squash", "pad")), rng.choice(("bilinear", "bicubic", "lanczos"))
    made = Preprocess(size, fit, rng.choice((1.0, 0.875, 0.95, rng.uniform(0.1, 1))), interpolation=filter)
    print(height, width, made, file=sys.stderr)
    pixels = made.pixels(noise[: height * width * 3].reshape(height, width, 3))
    assert pixels.shape == (*size, 3)
"""


def _survive_shapes(count: int, seed: int) -> None:
    # In a process of its own: what this guards against (see _resample) ends the process, and would end pytest.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", _ANY_SHAPE, str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_shape_of_picture_and_model_input_crashes() -> None:
    _survive_shapes(3_000, seed=1)


@pytest.mark.torture
def test_100_000_shapes_of_picture_and_model_input_crash_nothing() -> None:
    for seed in range(5):
        _survive_shapes(20_000, seed)


def test_the_pixels_are_the_callers_own() -> None:
    photo = hostile.photo(300, 200)
    for made in (Preprocess((224, 224)), Preprocess((300, 200)), Preprocess((224, 224), "pad")):
        got = made.pixels(photo)
        assert got.flags.c_contiguous
        assert got.flags.writeable
        assert not np.shares_memory(got, photo)


def test_many_threads_get_the_pixels_that_one_gets() -> None:
    files = [hostile.encoded(hostile.photo(300 + n, 400 - n, n), "JPEG") for n in range(24)]
    made = Preprocess((96, 96))
    alone = [made.pixels(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(made.pixels, files * 4))
    assert all(np.array_equal(one, other) for one, other in zip(alone * 4, together, strict=True))


def test_a_bad_picture_and_limits_are_told_as_by_load() -> None:
    with pytest.raises(BadImage, match="it looks like text"):
        Preprocess().pixels(b"no picture")
    with pytest.raises(BadImage, match="too large"):
        Preprocess().pixels(hostile.photo(10, 10), limits=Limits(max_pixels=99))


def test_normalised_pixels_are_those_worked_out_by_hand() -> None:
    made = Preprocess((1, 2), mean=(0.5, 0.0, 0.2), std=(0.5, 1.0, 0.1))
    got = made.normalised(np.array([[[[0, 255, 51], [255, 51, 102]]]], np.uint8))  # (1, 1, 2, 3)
    assert got.dtype == np.float32
    assert got.shape == (1, 3, 1, 2)
    assert np.abs(got[0, :, 0] - np.array([[-1, 1], [1, 0.2], [0, 2]])).max() < 1e-6


def test_settings_survive_json_and_equal_settings_give_equal_json() -> None:
    made = Preprocess((192, 224), "crop", 0.95, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), "bilinear")
    assert json.dumps(made.to_json(), sort_keys=True) == (
        '{"crop_pct": 0.95, "fit": "crop", "interpolation": "bilinear", '
        '"mean": [0.5, 0.5, 0.5], "size": [192, 224], "std": [0.25, 0.5, 1.0]}'
    )
    assert Preprocess.from_json(json.loads(json.dumps(made.to_json()))) == made
    loose: Any = {"size": [192, 224], "crop_pct": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert json.dumps(Preprocess(**loose).to_json()) == json.dumps(
        Preprocess((192, 224), crop_pct=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).to_json()
    )
    assert hash(Preprocess(**loose)) == hash(Preprocess(**loose))


def test_json_with_a_missing_or_unknown_key_is_refused() -> None:
    values = Preprocess().to_json()
    with pytest.raises(BadSettings, match=r"want the keys crop_pct, fit, .* in preprocess, got crop_pct, fit, gamma"):
        Preprocess.from_json(values | {"gamma": 1})
    del values["std"]
    with pytest.raises(BadSettings, match=r"got crop_pct, fit, interpolation, mean, size$"):
        Preprocess.from_json(values)


def test_timms_description_of_weights_is_understood() -> None:
    assert Preprocess.from_timm(CONFIG) == Preprocess((224, 224), "crop", 0.95, interpolation="bicubic")
    border = CONFIG | {"crop_mode": "border", "input_size": [3, 192, 256], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    assert Preprocess.from_timm(border) == Preprocess((192, 256), "pad", 0.95, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert Preprocess.from_timm({}) == Preprocess((224, 224), "crop", 0.875)  # timm's own defaults
    with pytest.raises(BadSettings, match="want a model of 3 channels, got 1"):
        Preprocess.from_timm(CONFIG | {"input_size": (1, 224, 224)})
    with pytest.raises(BadSettings, match="want crop_mode to be one of center, squash, border, got 'random'"):
        Preprocess.from_timm(CONFIG | {"crop_mode": "random"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": (0, 224)}, r"want size to be 2 number\(s\) of 1 to 4096"),
        ({"size": (224,)}, "want size"),
        ({"size": 224}, "want size"),
        ({"size": (224.5, 224)}, "want size to be two whole numbers"),
        ({"size": (224, 5000)}, "want size"),
        ({"fit": "stretch"}, "want fit to be one of crop, squash, pad, got 'stretch'"),
        ({"fit": ["crop"]}, "want fit"),
        ({"crop_pct": 0}, r"want crop_pct to be 1 number\(s\) of 0.1 to 1"),
        ({"crop_pct": 1.1}, "want crop_pct"),
        ({"crop_pct": "1"}, "want crop_pct"),
        ({"crop_pct": float("nan")}, "want crop_pct"),
        ({"mean": (0.5, 0.5)}, r"want mean to be 3 number\(s\) of 0 to 1"),
        ({"mean": (124, 116, 104)}, "want mean"),
        ({"std": (0, 1, 1)}, "want std"),
        ({"std": (True, 1, 1)}, "want std"),
        ({"interpolation": "nearest"}, "want interpolation to be one of bilinear, bicubic, lanczos, got 'nearest'"),
    ],
)
def test_a_setting_out_of_range_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        replace(Preprocess(), **changed)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Preprocess().fit = "crop"  # type: ignore[misc]  # that is what is tested


def test_importing_it_loads_no_torch_and_no_openvino() -> None:
    code = "import sys, binsight.preprocess; print([m for m in ('torch', 'timm', 'openvino') if m in sys.modules])"
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": source}
    )
    assert done.stdout.strip() == "[]"
