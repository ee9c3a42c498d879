"""Pictures in, unit vectors out: that they are the network's, however they are run, started and interrupted."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from binsight import checkpoint, network, openvino_export
from binsight.checkpoint import Heads
from binsight.counting import Calibration
from binsight.encoder import Encoder, load_encoder
from binsight.errors import BadImage, BadSettings, CannotBeDone, UnknownModel
from binsight.mixed_precision import has_bf16
from binsight.model_folder import write_model
from binsight.vectors import UNIT_TOLERANCE
from tests.hub_server import hub
from tests.model_folders import make_binsight_folder, make_model_folder, timms_features

SIZE = 96


def noise(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures with structure, so that a random network tells them apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for one in coarse])


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((a * b).sum(axis=1), np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(root))
        yield root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "small", size=SIZE)


@pytest.fixture(scope="module")
def encoder(cache: Path, folder: Path) -> Encoder:
    return load_encoder(f"local-dir:{folder}", device="cpu", precision="fp32")


def started(code: str, *arguments: object, **environment: str) -> Any:
    """What a new Python process prints as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOAD = """
import json, sys, time
import numpy as np
from binsight.encoder import load_encoder
from binsight.errors import BinsightError

def load(model, pixels=None):
    start = time.perf_counter()
    try:
        encoder = load_encoder(model, device="cpu", precision="fp32")
        pixels = np.load(pixels) if pixels else np.zeros((1, *encoder.preprocess.size, 3), np.uint8)
        told = {"vectors": encoder.encode_pixels(pixels).vectors.tolist(), "fingerprint": encoder.info.fingerprint}
    except BinsightError as error:
        told = {"error": type(error).__name__, "message": str(error)}
    told["took_s"] = time.perf_counter() - start
    told["modules"] = [m for m in ("torch", "timm", "openvino_telemetry", "huggingface_hub") if sys.modules.get(m)]
    return told

"""
LOAD_ONE = LOAD + "print(json.dumps(load(*sys.argv[1:])))"
LOAD_EACH = LOAD + "print(json.dumps([load(model) for model in sys.argv[1:]]))"


# What the vectors are


def test_vectors_are_those_of_timm(encoder: Encoder, folder: Path) -> None:
    pixels = noise(20)
    wanted = timms_features(folder, pixels)
    assert (wanted @ wanted.T).min() < 0.99  # the pictures differ
    assert cosines(encoder.encode_pixels(pixels).vectors, wanted).min() > 0.99999


@pytest.mark.parametrize(
    ("architecture", "model_args"),
    [
        ("resnet10t", {}),
        ("test_vit", {"img_size": SIZE, "global_pool": "avg"}),
        ("mobilenetv2_050", {"pad_type": "same", "bn_eps": 1e-3}),
    ],
)
def test_vectors_are_those_of_timm_for_other_networks_and_arguments(
    cache: Path, tmp_path: Path, architecture: str, model_args: dict[str, Any]
) -> None:
    made = make_model_folder(tmp_path / "m", architecture=architecture, size=SIZE, model_args=model_args)
    loaded = load_encoder(str(made), device="cpu", precision="fp32")
    assert loaded.runtime == "openvino fp32 on cpu"
    pixels = noise(9)
    assert cosines(loaded.encode_pixels(pixels).vectors, timms_features(made, pixels)).min() > 0.99999


def test_the_fast_precision_stays_near(cache: Path, encoder: Encoder, folder: Path) -> None:
    fast = load_encoder(f"local-dir:{folder}", device="cpu")
    assert fast.runtime.startswith("openvino bf16" if has_bf16() else "openvino fp32")
    assert fast.info.fingerprint == encoder.info.fingerprint
    pixels = noise(32)
    assert cosines(fast.encode_pixels(pixels).vectors, encoder.encode_pixels(pixels).vectors).mean() >= 0.999


def test_torch_is_the_reference(cache: Path, encoder: Encoder, folder: Path) -> None:
    reference = load_encoder(f"local-dir:{folder}", device="cpu", runtime="torch")
    assert reference.runtime == "torch fp32 on cpu"
    assert reference.info == encoder.info
    pixels = noise(40)
    assert cosines(reference.encode_pixels(pixels).vectors, timms_features(folder, pixels)).min() > 0.999999
    half = load_encoder(f"local-dir:{folder}", device="cpu", runtime="torch", precision="bf16")
    assert half.runtime == "torch bf16 on cpu"
    assert cosines(reference.encode_pixels(pixels).vectors, half.encode_pixels(pixels).vectors).mean() >= 0.999


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 21])
def test_a_picture_has_the_same_vector_in_every_batch(encoder: Encoder, n: int) -> None:
    pixels = noise(21)
    alone = np.concatenate([encoder.encode_pixels(pixels[i : i + 1]).vectors for i in range(n)])
    together = encoder.encode_pixels(pixels[:n]).vectors
    assert cosines(alone, together).min() > 0.999999
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < UNIT_TOLERANCE


def test_info_says_whose_vectors_these_are(encoder: Encoder, folder: Path) -> None:
    assert encoder.info.dim == 256
    assert encoder.info.metric == "cosine"
    assert encoder.info.model == f"local-dir:{folder}"
    assert encoder.info.fingerprint == checkpoint.open_folder(folder).fingerprint


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_100"])
def test_real_photos_keep_a_mean_cosine_of_0_999(cache: Path, data_folder: Path, weights_folder: Path, name: str) -> None:
    fast = load_encoder(f"local-dir:{weights_folder / name}", device="cpu")
    photos = sorted((data_folder / "pc_parts").glob("*/*.jpg"))[::180]
    pixels = np.stack([fast.preprocess.pixels(path) for path in photos])
    agreed = cosines(fast.encode_pixels(pixels).vectors, timms_features(weights_folder / name, pixels))
    assert agreed.mean() >= 0.999
    assert agreed.min() >= 0.99
    if has_bf16():
        assert fast.runtime == f"openvino {'bf16' if name == 'resnet50' else 'bf16 and fp32'} on cpu"


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(cache: Path, encoder: Encoder, folder: Path) -> None:
    gpu = load_encoder(f"local-dir:{folder}", device="cuda")
    assert gpu.runtime.startswith("torch ")
    assert gpu.info == encoder.info
    pixels = noise(300)
    assert cosines(gpu.encode_pixels(pixels).vectors, encoder.encode_pixels(pixels).vectors).mean() >= 0.999


# What it takes


def test_all_kinds_of_pictures_are_taken_in_order(encoder: Encoder, tmp_path: Path) -> None:
    pixels = noise(11)
    images: list[Any] = [Image.fromarray(one) for one in pixels]
    wanted = np.concatenate([encoder.encode([one]).vectors for one in images])
    images[1] = pixels[1]
    images[4] = tmp_path / "4.png"
    Image.fromarray(pixels[4]).save(images[4])
    images[5] = str(images[4])
    buffer = io.BytesIO()
    Image.fromarray(pixels[9]).save(buffer, "PNG")
    images[9] = buffer.getvalue()
    wanted[5] = wanted[4]
    for batch_size in (1, 4, 64):
        assert cosines(encoder.encode(images, batch_size=batch_size).vectors, wanted).min() > 0.999999
    assert encoder.encode(tuple(images)).counts is None


def test_a_picture_is_preprocessed_as_the_model_wants_it(encoder: Encoder) -> None:
    wide = Image.fromarray(noise(1)[0]).resize((400, 200))
    pixels = encoder.preprocess.pixels(wide)
    assert np.array_equal(encoder.encode([wide]).vectors, encoder.encode_pixels(pixels[np.newaxis]).vectors)


def test_nothing_gives_nothing(encoder: Encoder) -> None:
    for encoded in (encoder.encode([]), encoder.encode_pixels(noise(1)[:0])):
        assert encoded.vectors.shape == (0, encoder.info.dim)
        assert encoded.vectors.dtype == np.float32


def test_a_bad_picture_is_named(encoder: Encoder, tmp_path: Path) -> None:
    images: list[Any] = list(noise(30))
    images[15] = tmp_path / "broken.jpg"
    images[15].write_bytes(b"")
    with pytest.raises(BadImage, match=r"^image 15 \(.*broken\.jpg\): an empty file$"):
        encoder.encode(images, batch_size=4)


def test_a_bad_picture_that_is_the_only_one_has_no_number(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "nothing.jpg"
    for image, name in ((path, str(path)), (str(path), str(path))):
        with pytest.raises(BadImage, match=f"^{re.escape(name)}: cannot be read: No such file or directory$"):
            encoder.encode([image])
    with pytest.raises(BadImage, match=r"^the image: an empty file$"):
        encoder.encode([b""])


def test_one_picture_instead_of_a_list_is_refused(encoder: Encoder) -> None:
    for one in ("a.jpg", b"123", noise(1)[0], Path("a.jpg")):
        with pytest.raises(BadSettings, match=r"pass one picture as \[picture\]"):
            encoder.encode(one)  # type: ignore[arg-type]
    with pytest.raises(BadSettings, match="batch_size of at least 1, got 0"):
        encoder.encode([noise(1)[0]], batch_size=0)


@pytest.mark.parametrize("wrong", [noise(2)[0], noise(2)[:, :95], noise(2).astype(np.float32), noise(2)[..., :2]])
def test_pixels_of_another_shape_or_type_are_refused(encoder: Encoder, wrong: NDArray[Any]) -> None:
    with pytest.raises(BadSettings, match=r"want uint8 pixels \(n, 96, 96, 3\), got "):
        encoder.encode_pixels(wrong)


def test_pixels_may_be_read_only_or_strided(encoder: Encoder) -> None:
    pixels = noise(20)
    wanted = encoder.encode_pixels(pixels).vectors
    frozen = pixels.copy()
    frozen.setflags(write=False)
    for chosen in (slice(None), slice(0, 3), slice(None, None, -1), slice(0, 20, 2)):
        assert cosines(encoder.encode_pixels(frozen[chosen]).vectors, wanted[chosen]).min() > 0.999999
    reference = load_encoder(encoder.info.model, device="cpu", runtime="torch")
    assert cosines(reference.encode_pixels(frozen).vectors, wanted).min() > 0.99999


def test_many_threads_may_ask_at_once(encoder: Encoder) -> None:
    pixels = noise(24)
    wanted = encoder.encode_pixels(pixels).vectors
    sizes = [1, 3, 8, 24, 11, 2, 7, 16] * 6

    def ask(n: int) -> float:
        return float(cosines(encoder.encode_pixels(pixels[:n]).vectors, wanted[:n]).min())

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(ask, sizes)) > 0.999999


def test_warming_up_counts_as_loading(cache: Path, folder: Path) -> None:
    fresh = load_encoder(f"local-dir:{folder}", device="cpu")
    loaded_s = fresh.load_s
    fresh.warm_up(8)
    assert fresh.load_s > loaded_s > 0


# Which models there are


def test_unknown_choices_are_refused(folder: Path) -> None:
    for choice, message in (
        ({"device": "tpu"}, "want device 'auto', 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ({"precision": "int4"}, "want precision 'auto' or 'fp32' or 'bf16', got 'int4'"),
        ({"runtime": "onnx"}, "want runtime 'auto' or 'openvino' or 'torch', got 'onnx'"),
        ({"device": "cuda", "runtime": "openvino"}, "OpenVINO runs on the CPU here"),
    ):
        with pytest.raises(BadSettings, match=message):
            load_encoder(str(folder), **choice)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(CannotBeDone, match="there is no device cuda:3: torch sees 0 CUDA devices; take 'cpu'"):
        load_encoder(str(folder), device="cuda:3")


def test_unknown_models_are_refused_with_the_next_step(cache: Path, tmp_path: Path) -> None:
    for name, message in (
        ("binsight:nope", "there is 'binsight:colour-layout'"),
        ("resnte50", "knows no model 'resnte50'; near: .*resnet50.*; or give local-dir:PATH"),
        ("resnet50.nope", "knows no model 'resnet50.nope'"),
        ("some/where", "some/where is no model folder"),
        ("resnet50_mlp", "timm has no weights on the hub for 'resnet50_mlp'"),
    ):
        with pytest.raises(UnknownModel, match=message):
            load_encoder(name)
    made = make_model_folder(tmp_path / "m", config={"architecture": "resnte50"})
    with pytest.raises(UnknownModel, match="knows no architecture 'resnte50'; near: "):
        load_encoder(str(made))


def without(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a model folder, its weights renamed or left out."""
    shutil.copytree(folder, target)
    state = load_file(folder / "model.safetensors")
    prefix, left_out = changes.get("prefix", ""), changes.get("left_out", "")
    save_file({f"{prefix}{k}": v for k, v in state.items() if k != left_out}, target / "model.safetensors")
    return target


@pytest.mark.parametrize("architecture", ["test_efficientnet", "dla46_c"])  # timm loads the second leniently
def test_a_weight_that_is_missing_is_never_random(cache: Path, tmp_path: Path, architecture: str) -> None:
    made = make_model_folder(tmp_path / "m", architecture=architecture)
    names = [n for n, v in load_file(made / "model.safetensors").items() if v.ndim == 4]
    lacking = without(made, tmp_path / "lacking", left_out=names[3])
    with pytest.raises(UnknownModel, match=rf"does not fit {architecture}.*{names[3]}".replace(".", r"[\s\S]")):
        load_encoder(str(lacking), device="cpu")


def test_weights_under_names_that_timm_maps_are_loaded_as_timm_does(
    cache: Path, tmp_path: Path, encoder: Encoder, folder: Path
) -> None:
    renamed = without(folder, tmp_path / "renamed", prefix="module.")
    loaded = load_encoder(str(renamed), device="cpu", precision="fp32")
    pixels = noise(5)
    assert cosines(loaded.encode_pixels(pixels).vectors, encoder.encode_pixels(pixels).vectors).min() > 0.999999


def test_weights_that_do_not_fit_are_refused(cache: Path, tmp_path: Path) -> None:
    made = make_model_folder(tmp_path / "m", config={"model_args": {"output_stride": 16, "no_such": 1}})
    with pytest.raises(UnknownModel, match="does not fit test_efficientnet with model_args"):
        load_encoder(str(made), device="cpu")


def test_the_built_in_model_needs_no_torch() -> None:
    told = started(LOAD_ONE, "binsight:colour-layout")
    assert told["modules"] == []
    assert len(told["vectors"][0]) == 503


# Heads

HEADS = Heads(16, Calibration("softmax", 5, 2.0, 0.9, 0.8), ("board", "disk", "fan", "hub", "keyboard", "mouse"))


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A folder of ours with all heads, and what torch says of `noise(11)` by head."""
    opened, _ = make_binsight_folder(tmp_path_factory.mktemp("models") / "ours", HEADS, size=SIZE)
    return opened.folder, network.answers_of(network.load(opened), torch.from_numpy(noise(11)))


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_one_pass_gives_vectors_counts_and_labels(
    cache: Path, headed: tuple[Path, dict[str, NDArray[np.float32]]], runtime: str
) -> None:
    folder, said = headed
    loaded = load_encoder(str(folder), device="cpu", precision="fp32", runtime=runtime)
    assert loaded.runtime == f"{runtime} fp32 on cpu"
    assert loaded.info.dim == 16
    assert loaded.info.fingerprint == checkpoint.open_folder(folder).fingerprint
    for n in (11, 1, 3):
        encoded = loaded.encode_pixels(noise(11)[:n])
        unit = said["embedding"] / np.linalg.norm(said["embedding"], axis=1, keepdims=True)
        assert cosines(encoded.vectors, unit[:n]).min() > 0.99999
        assert encoded.counts is not None
        powers = np.exp(said["count"][:n].astype(np.float64) / 2)  # the temperature
        wanted = powers / powers.sum(axis=1, keepdims=True)
        came = np.array([[*count.probabilities, count.more] for count in encoded.counts])
        np.testing.assert_allclose(came, wanted, atol=1e-3)
        assert [count.value for count in encoded.counts] == wanted[:, :6].argmax(axis=1).tolist()
        assert encoded.labels is not None
        for row, label in zip(said["label"][:n].astype(np.float64), encoded.labels, strict=True):
            shares = dict(zip(HEADS.classes or (), np.exp(row) / np.exp(row).sum(), strict=True))
            best = sorted(shares, key=shares.__getitem__, reverse=True)[:5]
            assert [name for name, _ in label] == best
            assert [probability for _, probability in label] == pytest.approx([shares[name] for name in best], abs=1e-3)


def test_batches_of_pictures_keep_their_counts_and_labels_in_order(
    cache: Path, headed: tuple[Path, dict[str, NDArray[np.float32]]]
) -> None:
    loaded = load_encoder(str(headed[0]), device="cpu", precision="fp32")
    images = list(noise(11))
    whole = loaded.encode(images)
    assert whole.counts is not None
    assert whole.labels is not None
    assert len({label[0] for label in whole.labels}) > 1  # the pictures differ
    parts = loaded.encode(images, batch_size=4)
    assert [label[0][0] for label in parts.labels or ()] == [label[0][0] for label in whole.labels]
    expected = [count.expected for count in whole.counts]
    assert [count.expected for count in parts.counts or ()] == pytest.approx(expected, abs=1e-3)
    nothing = loaded.encode([])
    assert (nothing.vectors.shape, nothing.counts, nothing.labels) == ((0, 16), [], [])


def test_a_model_without_an_embedding_head_gives_the_pooled_features(cache: Path, tmp_path: Path) -> None:
    opened, net = make_binsight_folder(tmp_path / "m", Heads(count=Calibration("corn", 5)), size=SIZE, half=False)
    loaded = load_encoder(str(opened.folder), device="cpu", precision="fp32")
    wanted = network.answers_of(net, torch.from_numpy(noise(4)))["embedding"]
    encoded = loaded.encode_pixels(noise(4))
    assert encoded.vectors.shape == (4, 256)
    assert cosines(encoded.vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).min() > 0.99999
    assert len(encoded.counts or ()) == 4
    assert encoded.labels is None


def test_models_with_the_same_vectors_and_other_counts_share_no_export(cache: Path, tmp_path: Path) -> None:
    heads = Heads(count=Calibration("softmax", 5))
    opened, net = make_binsight_folder(tmp_path / "a", heads, size=SIZE)
    first = load_encoder(str(opened.folder), device="cpu", precision="fp32").encode_pixels(noise(2))
    net.get_parameter("count.bias").data[3] = 50.0
    arguments: dict[str, Any] = {"training": {}, "licence": "MIT", "card": ""}
    other = write_model(tmp_path / "b", net, opened.config, heads, **arguments)
    assert other.fingerprint == opened.fingerprint
    second = load_encoder(str(other.folder), device="cpu", precision="fp32").encode_pixels(noise(2))
    assert cosines(first.vectors, second.vectors).min() > 0.999999
    assert [count.value for count in second.counts or ()] == [3, 3]
    assert [count.value for count in first.counts or ()] != [3, 3]


def test_a_licence_that_forbids_trade_is_told_and_another_is_not(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for licence, told in (
        ("CC-BY-NC-SA-3.0", True),
        ("uber-non-commercial", True),
        ("Apache-2.0", False),
        ("BSD-3-Clause", False),
    ):
        opened, _ = make_binsight_folder(tmp_path / licence, HEADS, licence=licence)
        caplog.clear()
        load_encoder(str(opened.folder), device="cpu", runtime="torch")
        assert ([r.message for r in caplog.records if "licence" in r.message] != []) is told
        assert not told or f"are under the licence {licence}" in caplog.text


HEADED = """
import json, sys
import numpy as np
from binsight.encoder import load_encoder
encoded = load_encoder(sys.argv[1], device="cpu", precision="fp32").encode_pixels(np.load(sys.argv[2]))
told = {"values": [c.value for c in encoded.counts], "labels": [l[0][0] for l in encoded.labels]}
told["modules"] = [m for m in ("torch", "timm") if sys.modules.get(m)]
print(json.dumps(told))
"""


def test_once_exported_a_model_with_heads_needs_no_torch(
    cache: Path, headed: tuple[Path, dict[str, NDArray[np.float32]]], tmp_path: Path
) -> None:
    encoded = load_encoder(str(headed[0]), device="cpu", precision="fp32").encode_pixels(noise(11))
    np.save(tmp_path / "p.npy", noise(11))
    told = started(HEADED, headed[0], tmp_path / "p.npy")
    assert told["modules"] == []
    assert told["values"] == [count.value for count in encoded.counts or ()]
    assert told["labels"] == [label[0][0] for label in encoded.labels or ()]


def test_an_export_in_the_models_folder_is_taken_unless_it_is_another_models(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = make_binsight_folder(tmp_path / "m", HEADS)
    reloaded = network.load(opened)
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    place = opened.folder / "openvino"
    reloaded.requires_grad_(True)  # as one that learns
    made = openvino_export.export_to(place, reloaded, size=(64, 64), fingerprint=opened.identity)
    assert all(value.requires_grad for value in reloaded.parameters())
    assert made.outputs == {"embedding": 16, "count": 7, "label": 6}
    assert max(made.difference.values()) < 1e-3
    load_encoder(str(opened.folder), device="cpu")
    assert not (tmp_path / "cache").exists()
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    load_encoder(str(opened.folder), device="cpu")
    assert (tmp_path / "cache").exists()


@pytest.mark.parametrize("head", ["embedding", "count"])
def test_an_export_that_answers_otherwise_than_torch_is_not_taken(head: str) -> None:
    right = {"embedding": np.eye(3, dtype=np.float32), "count": np.zeros((3, 4), np.float32)}
    assert openvino_export.differences(right, right) == ({"embedding": 0.0, "count": 0.0}, None)
    wrong = right | {head: right[head] + np.float32(0.05)}
    difference, why = openvino_export.differences(right, wrong)
    assert why is not None
    assert head == "embedding" or difference["count"] == pytest.approx(0.05)
    assert openvino_export.differences(right, right | {head: right[head] * np.float32("nan")})[1] is not None


# Starting


def test_a_second_start_imports_no_torch_and_gives_the_same(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", noise(3))
    told = started(LOAD_ONE, f"local-dir:{folder}", tmp_path / "p.npy")
    assert told["modules"] == []
    assert told["fingerprint"] == encoder.info.fingerprint
    assert cosines(np.array(told["vectors"], np.float32), encoder.encode_pixels(noise(3)).vectors).min() > 0.999999


LET_GO = """
import json, signal, sys, threading
import numpy as np
from binsight.encoder import load_encoder
hits = []
signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))
def working():
    encoder = load_encoder(sys.argv[1], device="cpu")
    encoder.encode_pixels(np.zeros((1, *encoder.preprocess.size, 3), np.uint8))
    return encoder
encoders = [working(), working()]
if sys.argv[2] == "in another thread":
    thread = threading.Thread(target=encoders.clear)
    thread.start()
    thread.join()
else:
    del encoders[0]
    del encoders[0]
signal.raise_signal(signal.SIGUSR1)
print(json.dumps(hits))
"""


@pytest.mark.parametrize("where", ["in another thread", "the first one first"])
def test_a_signal_does_no_harm_after_an_encoder_was_let_go(encoder: Encoder, folder: Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LET_GO, f"local-dir:{folder}", where], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr  # was −11 on a CPU with AMX


def test_changed_weights_are_another_model(cache: Path, encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    times = (folder / "model.safetensors").stat()
    state = load_file(folder / "model.safetensors")
    save_file({k: v * 1.5 if k == "conv_stem.weight" else v for k, v in state.items()}, changed / "model.safetensors")
    os.utime(changed / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_encoder(str(changed), device="cpu").info.fingerprint != encoder.info.fingerprint


@pytest.mark.parametrize("file", ["model.bin", "model.xml", "manifest.json"])
def test_a_damaged_export_is_made_again(
    encoder: Encoder, cache: Path, folder: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    entry = openvino_export.entry_of(encoder.info.fingerprint, cache)
    path = entry / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        again = load_encoder(f"local-dir:{folder}", device="cpu", precision="fp32")
    assert "making it again" in caplog.text
    assert openvino_export.open_export(entry, fingerprint=encoder.info.fingerprint) is not None
    assert cosines(again.encode_pixels(noise(2)).vectors, encoder.encode_pixels(noise(2)).vectors).min() > 0.999999


def test_the_export_of_another_model_is_not_taken(encoder: Encoder, cache: Path) -> None:
    entry = openvino_export.entry_of(encoder.info.fingerprint, cache)
    assert openvino_export.open_export(entry, fingerprint="0" * 64) is None
    assert openvino_export.open_export(cache / "none", fingerprint="0" * 64) is None


def test_a_cache_that_cannot_be_written_costs_time_only(
    encoder: Encoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "file"))
    uncached = load_encoder(f"local-dir:{folder}", device="cpu", precision="fp32")
    assert "is not kept, so each start makes it anew" in caplog.text
    pixels = noise(20)
    assert cosines(uncached.encode_pixels(pixels).vectors, encoder.encode_pixels(pixels).vectors).min() > 0.99999
    assert cosines(uncached.encode_pixels(pixels[:1]).vectors, encoder.encode_pixels(pixels[:1]).vectors).min() > 0.99999


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of the two processes of `first_starts`."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first_starts(folder: Path, home: Path) -> list[dict[str, Any]]:
    """What two processes say that start at once with an empty cache."""
    with ThreadPoolExecutor(2) as pool:
        environment = {"HOME": str(home), "BINSIGHT_CACHE": str(home / "cache")}
        asked = [pool.submit(started, LOAD_ONE, folder, **environment) for _ in range(2)]
        return [future.result() for future in asked]


def test_two_first_starts_at_once_agree(first_starts: list[dict[str, Any]], home: Path) -> None:
    assert first_starts[0]["vectors"] == first_starts[1]["vectors"]
    assert len(list((home / "cache" / "openvino").iterdir())) == 1


def test_starting_sends_no_usage_data(first_starts: list[dict[str, Any]], home: Path) -> None:
    assert "openvino_telemetry" not in first_starts[0]["modules"]
    assert [path.name for path in home.iterdir()] == ["cache"]  # its marks would lie in ~/intel


def test_a_network_that_openvino_cannot_run_is_run_by_torch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(openvino_export, "LEAST_COSINE", 1.1)  # which no export reaches
    assert load_encoder(str(folder), device="cpu").runtime == "torch fp32 on cpu"
    assert "so torch does: its answer (3, 256) has cosine 1.00000" in caplog.text
    with pytest.raises(CannotBeDone, match="OpenVINO cannot run this test_efficientnet"):
        load_encoder(str(folder), device="cpu", runtime="openvino")


# Models of the hub


@pytest.fixture(scope="module")
def hub_starts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process says of a hub's models, then one without the hub, then one that finds its copy damaged."""
    root = tmp_path_factory.mktemp("hub")
    made = make_model_folder(root / "timm", size=160)
    pickled = root / "pickled"
    pickled.mkdir()
    shutil.copy(folder / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    environment = {"BINSIGHT_CACHE": str(root / "cache"), "HF_HOME": str(root / "hf"), "HF_HUB_DISABLE_XET": "1"}
    told: dict[str, Any] = {}
    with hub({"acme/parts": folder, "acme/pickled": pickled, "timm/test_efficientnet.r160_in1k": made}) as endpoint:
        environment["HF_ENDPOINT"] = endpoint
        asked = {"first": "hf-hub:acme/parts", "lost": "hf-hub:acme/none", "pickled": "hf-hub:acme/pickled"}
        asked["timm name"] = "test_efficientnet"
        told |= dict(zip(asked, started(LOAD_EACH, *asked.values(), **environment), strict=True))
        told["second"] = started(LOAD_ONE, "hf-hub:acme/parts", **environment, HF_HUB_OFFLINE="1")
        kept = checkpoint.kept_folder("hf-hub:acme/parts", root / "cache") / "model.safetensors"
        kept.write_bytes(kept.read_bytes()[:-1000] + b"\0" * 1000)
        shutil.rmtree(root / "hf")
        told["damaged"] = started(LOAD_ONE, "hf-hub:acme/parts", **environment)
    told["kept"] = {
        name: checkpoint.open_folder(checkpoint.kept_folder(name, root / "cache"))
        for name in ("hf-hub:acme/parts", "test_efficientnet")
    }
    return told


def test_the_second_start_of_a_hub_model_needs_no_hub_and_no_torch(hub_starts: dict[str, Any], folder: Path) -> None:
    assert hub_starts["first"]["fingerprint"] == checkpoint.open_folder(folder).fingerprint
    assert hub_starts["second"]["vectors"] == hub_starts["first"]["vectors"]
    assert hub_starts["second"]["fingerprint"] == hub_starts["first"]["fingerprint"]
    assert hub_starts["second"]["modules"] == []


def test_a_kept_copy_that_is_damaged_is_fetched_again(hub_starts: dict[str, Any], folder: Path) -> None:
    assert hub_starts["damaged"]["vectors"] == hub_starts["first"]["vectors"]
    kept = hub_starts["kept"]["hf-hub:acme/parts"]
    assert kept.weights.read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_timm_name_takes_the_weights_of_its_hub_repository(hub_starts: dict[str, Any]) -> None:
    kept = hub_starts["kept"]["test_efficientnet"]
    assert hub_starts["timm name"]["fingerprint"] == kept.fingerprint
    assert kept.config.preprocess.mean == (0.485, 0.456, 0.406)  # timm's own for this name, not the repository's
    assert kept.config.dropped == ("classifier",)


def test_a_repository_without_the_model_is_named(hub_starts: dict[str, Any]) -> None:
    assert hub_starts["lost"]["error"] == hub_starts["pickled"]["error"] == "UnknownModel"
    assert "no public acme/none" in hub_starts["lost"]["message"]
    assert "has no model.safetensors, and pickled weights are not read" in hub_starts["pickled"]["message"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub (http://127.0.0.1:9) cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
    ],
)
def test_without_a_network_the_way_out_is_named_soon(tmp_path: Path, environment: dict[str, str], message: str) -> None:
    told = started(LOAD_ONE, "hf-hub:acme/parts", BINSIGHT_CACHE=str(tmp_path), HF_HOME=str(tmp_path / "hf"), **environment)
    assert told["error"] == "ModelUnavailable"
    assert message in told["message"]
    assert told["message"].startswith("'hf-hub:acme/parts' is not on this machine")
    assert "local-dir:PATH" in told["message"]
    assert told["took_s"] < 15
