"""A model folder opened without torch: what is read, what is refused, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from binsight import checkpoint
from binsight.checkpoint import NetworkConfig, fingerprint, open_folder
from binsight.errors import UnknownModel
from binsight.preprocess import Preprocess
from tests.model_folders import make_model_folder

PLAIN = Preprocess(size=(8, 8))


def config(**changes: Any) -> NetworkConfig:
    fields: dict[str, Any] = {
        "architecture": "resnet18",
        "model_args": {},
        "pooling": "default",
        "preprocess": PLAIN,
        "dropped": ("fc",),
        "pretrained_cfg": {},
    }
    return NetworkConfig(**(fields | changes))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file({"b": torch.tensor([1.5, -2.0]), "a.x": torch.tensor(3), "fc.weight": torch.ones(2, 2)}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "small")


# The fingerprint


def test_a_fingerprint_is_the_sha256_of_the_documented_bytes(weights: Path) -> None:
    canonical = json.dumps(
        {"architecture": "resnet18", "model_args": {"bn_eps": 0.001}, "pooling": "default", "preprocess": PLAIN.to_json()},
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    told = struct.pack("<I", len(canonical)) + canonical
    told += (
        struct.pack("<I", 3) + b"a.x" + struct.pack("<I", 0) + struct.pack("<f", 3.0)
    )  # a scalar; "a.x" before "b"; int64 as float32
    told += struct.pack("<I", 1) + b"b" + struct.pack("<I", 1) + struct.pack("<Q", 2) + struct.pack("<2f", 1.5, -2.0)
    assert fingerprint(config(model_args={"bn_eps": 0.001, "drop_rate": None}), weights) == hashlib.sha256(told).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_width_in_which_the_same_weights_are_stored_does_not_change_it(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 3, 1000).to(torch.bfloat16).to(torch.float16).to(torch.float32)  # exact in every width
    values = values.to(dtype).to(torch.float32)
    save_file({"w": values}, tmp_path / "wide.safetensors")
    save_file({"w": values.to(dtype)}, tmp_path / "narrow.safetensors")
    assert fingerprint(config(), tmp_path / "wide.safetensors") == fingerprint(config(), tmp_path / "narrow.safetensors")


def test_every_part_of_a_model_changes_it(weights: Path, tmp_path: Path) -> None:
    changed = [
        config(),
        config(architecture="resnet34"),
        config(model_args={"bn_eps": 0.001}),
        config(pooling="max"),
        config(preprocess=Preprocess(size=(8, 9))),
        config(preprocess=Preprocess(size=(8, 8), fit="crop")),
        config(dropped=()),
    ]
    prints = [fingerprint(one, weights) for one in changed]
    tensors = load_file(weights)
    for name, value in (("b", torch.tensor([1.5, -2.0001])), ("b", torch.tensor([[1.5, -2.0]])), ("c", torch.ones(1))):
        save_file({**tensors, name: value}, tmp_path / "other.safetensors")
        prints.append(fingerprint(config(), tmp_path / "other.safetensors"))
    assert len(set(prints)) == len(prints)


def test_a_classifier_that_is_dropped_does_not_change_it(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    save_file({**tensors, "fc.weight": torch.zeros(5, 2), "fc.bias": torch.zeros(5)}, tmp_path / "other.safetensors")
    assert fingerprint(config(), weights) == fingerprint(config(), tmp_path / "other.safetensors")
    save_file({**tensors, "fc_norm": torch.zeros(5)}, tmp_path / "more.safetensors")  # another module that begins alike
    assert fingerprint(config(), weights) != fingerprint(config(), tmp_path / "more.safetensors")


def test_a_tensor_is_hashed_in_pieces(tmp_path: Path) -> None:
    values = torch.arange(5_000_001, dtype=torch.float32).to(torch.float16)
    save_file({"w": values}, tmp_path / "big.safetensors")
    started = hashlib.sha256()
    read = json.dumps(
        {"architecture": "resnet18", "model_args": {}, "pooling": "default", "preprocess": PLAIN.to_json()},
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    started.update(struct.pack("<I", len(read)) + read + struct.pack("<I", 1) + b"w" + struct.pack("<I", 1))
    started.update(struct.pack("<Q", len(values)) + values.float().numpy().tobytes())
    assert fingerprint(config(), tmp_path / "big.safetensors") == started.hexdigest()


# Folders


def test_a_timm_folder_gives_its_network_and_its_preprocessing(folder: Path) -> None:
    opened = open_folder(folder)
    assert opened.config.architecture == "test_efficientnet"
    assert opened.config.dropped == ("classifier",)
    assert opened.config.preprocess == Preprocess(
        size=(96, 96), fit="crop", crop_pct=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), interpolation="bilinear"
    )
    assert opened.weights == folder / "model.safetensors"
    assert len(opened.fingerprint) == 64


def test_opening_a_folder_imports_neither_torch_nor_timm(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from binsight.checkpoint import open_folder\n"
        "print(open_folder(Path(sys.argv[1])).fingerprint); print(sorted({'torch', 'timm', 'openvino'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [open_folder(folder).fingerprint, "[]"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "want 'architecture'"),
        ({"architecture": "hf-hub:evil/model"}, "want 'architecture'"),
        ({"model_args": {"checkpoint_path": "x.pth"}}, "may not hold 'checkpoint_path'"),
        ({"model_args": {"pretrained": True}}, "may not hold 'pretrained'"),
        ({"model_args": [1]}, "want 'model_args', an object; got list"),
        ({"model_args": {"in_chans": 1}}, "takes 1 channels"),
        ({"pretrained_cfg": {"classifier": [""]}}, "want 'classifier'"),
        ({"pretrained_cfg": {"mean": [2, 2, 2]}}, "want mean"),
        ({"format": "other"}, "format 'other' is not one this version reads"),
        ({"fingerprint": "0" * 64}, "is damaged: config.json says fingerprint 000"),
        ({"format": []}, "format"),
        ({"model_args": {"drop_rate": float("1e999")}}, "not finite|no JSON number"),
        ({"pretrained_cfg": {"classifier": 5}}, "classifier"),
        ({"pretrained_cfg": {"input_size": 5}}, "input_size"),
        ({"model_args": {"img_size": 1.5}, "pretrained_cfg": {"fixed_input_size": True}}, "img_size"),
    ],
)
def test_a_config_that_is_wrong_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    made = make_model_folder(tmp_path / "m", config=change)
    with pytest.raises(UnknownModel, match=message):
        open_folder(made)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": NaN}', "[" * 100_000, "\xff"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UnknownModel, match=r"config\.json is no"):
        open_folder(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"none is no model folder: config\.json cannot be read \(No such file"):
        open_folder(tmp_path / "none")


def test_a_pickle_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(UnknownModel, match=r"pytorch_model\.bin may hold a pickle, which can run code"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("local-dir:x", "x"), ("some/where", "some/where"), ("hf-hub:a/b", None), ("resnet50", None), ("resnet50.a1_in1k", None)],
)
def test_a_name_is_a_folder_or_it_is_not(name: str, expected: str | None) -> None:
    assert checkpoint.folder_of(name) == (Path(expected) if expected else None)


def test_a_folder_in_the_working_directory_goes_by_its_bare_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert checkpoint.folder_of("small") == Path("small")


# Hostile safetensors


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def safetensors(header: Any, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header claims 0 bytes"),
        (b"\x05\0\0", "its header claims 5 bytes, the file has 3"),
        (safetensors({}, length=2**63), "its header claims 9223372036854775808 bytes"),
        (struct.pack("<Q", 9 << 20) + b" " * (9 << 20), "its header claims 9437184 bytes"),
        (safetensors(b"{" * 70_000), "its header is not JSON"),
        (safetensors(b"[" * 100_000), "its header is not JSON"),
        (safetensors(b'{"a": ' + b"9" * 5000 + b"}"), "its header is not JSON"),
        (safetensors([1]), "its header is no JSON object"),
        (
            safetensors(b'{"a":' + json.dumps(entry(0, 8)).encode() + b',"a":' + json.dumps(entry(0, 8)).encode() + b"}"),
            "twice",
        ),
        (safetensors({"a": 1}), "no data_offsets of two whole numbers"),
        (safetensors({"a": {**entry(0, 8), "data_offsets": [0.0, 8]}}), "no data_offsets of two whole numbers"),
        (safetensors({"a": {**entry(0, 8), "data_offsets": [-8, 8]}}), "no data_offsets of two whole numbers"),
        (safetensors({"a": entry(0, 8, dtype="pickle")}), "has type 'pickle'"),
        (safetensors({"a": {**entry(0, 8), "dtype": ["F32"]}}), "has type"),
        (safetensors({"a": entry(0, 8, shape=[2**40, 2**40])}), "its shape .* wants"),
        (safetensors({"a": entry(0, 8, shape=[True, 2])}), "has no shape"),
        (safetensors({"a": entry(0, 8, shape=[-1, -2])}), "has no shape"),
        (safetensors({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12), "'b' begins at byte 4 .* ends at 8"),
        (safetensors({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12), "'b' begins at byte 8 .* ends at 4"),
        (safetensors({"a": entry(0, 400)}), "its weights end at byte"),
        (safetensors({"a": entry(0, 4)}), "its weights end at byte"),
        (safetensors({"\ud800": entry(0, 8)}), "is no Unicode text"),
    ],
)
def test_a_hostile_safetensors_file_is_refused_without_reading_its_claims(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnknownModel, match=f"damaged or no safetensors file.*{message}"):
        fingerprint(config(), path)


def test_an_empty_tensor_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"a": entry(0, 8), "z": entry(8, 8), "b": entry(0, 0, shape=[0, 3])}))
    assert len(fingerprint(config(), path)) == 64


# The cache


def test_the_cache_is_where_the_environment_says() -> None:
    assert checkpoint.cache_root({"BINSIGHT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert checkpoint.cache_root({"XDG_CACHE_HOME": "/b"}) == Path("/b/binsight")
    assert checkpoint.cache_root({}) == Path.home() / ".cache" / "binsight"


def test_no_model_name_leaves_the_cache(tmp_path: Path) -> None:
    for name in ("../../etc", "hf-hub:a/b", "a" * 5000, "é/\0", "."):
        kept = checkpoint.kept_folder(name, tmp_path)
        assert kept.parent == tmp_path / "models"
        assert len(kept.name) < 80
    assert checkpoint.kept_folder("a.b", tmp_path) != checkpoint.kept_folder("a_b", tmp_path)


def test_a_folder_is_published_whole_by_many_at_once(tmp_path: Path) -> None:
    final, barrier = tmp_path / "cache" / "entry", threading.Barrier(8)
    wrong: list[str] = []

    def is_good(folder: Path) -> bool:
        return len({(folder / name).read_text() for name in ("a", "b")}) == 1

    def make(number: int) -> None:
        def fill(folder: Path) -> None:
            (folder / "a").write_text(str(number))
            barrier.wait()
            (folder / "b").write_text(str(number))

        checkpoint.publish(final, fill, is_good=is_good)
        if not is_good(final):
            wrong.append(f"{number} saw a mixture")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert is_good(final)
    assert [path.name for path in final.parent.iterdir()] == ["entry"]


def test_what_is_bad_gives_way_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    final = tmp_path / "entry"
    final.mkdir()
    (final / "a").write_text("bad")

    def fill(made: Path) -> None:
        (made / "a").write_text("good")

    checkpoint.publish(final, fill, is_good=lambda folder: (folder / "a").read_text() == "good")
    assert (final / "a").read_text() == "good"

    def fail(_: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.publish(tmp_path / "other", fail, is_good=Path.is_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    for name, age_s in (("tmp-old", 90_000), ("tmp-new", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    checkpoint.publish(tmp_path / "entry", lambda made: None, is_good=Path.is_dir)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "tmp-new"]


def test_a_sealed_folder_that_is_damaged_is_found(tmp_path: Path) -> None:
    made = make_model_folder(tmp_path / "m")
    checkpoint.seal(made)
    assert checkpoint.is_sound(made)
    content = bytearray((made / "model.safetensors").read_bytes())
    content[-100_000] ^= 1
    (made / "model.safetensors").write_bytes(content)
    assert not checkpoint.is_sound(made)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_100"])
def test_the_fingerprint_of_a_real_model_agrees_with_torchs_reading_of_it(weights_folder: Path, name: str) -> None:
    opened = open_folder(weights_folder / name)
    digest = hashlib.sha256()
    told = {
        "architecture": name,
        "model_args": opened.config.model_args,
        "pooling": "default",
        "preprocess": opened.config.preprocess.to_json(),
    }
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    digest.update(struct.pack("<I", len(canonical)) + canonical)
    for key, value in sorted(load_file(opened.weights).items()):
        if not key.startswith(("fc.", "classifier.")):
            digest.update(struct.pack("<I", len(key)) + key.encode() + struct.pack("<I", value.ndim))
            digest.update(np.array(value.shape, "<u8").tobytes() + value.float().numpy().tobytes())
    assert opened.fingerprint == digest.hexdigest()
