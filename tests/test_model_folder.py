"""Our model folder: what is written, what is read again, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from binsight import checkpoint, network
from binsight.backbone import random_config
from binsight.checkpoint import Checkpoint, Heads, open_folder
from binsight.counting import Calibration
from binsight.errors import BadSettings, CannotBeDone, UnknownModel
from binsight.model_folder import write_model
from binsight.network import BinNet
from binsight.preprocess import Preprocess
from tests.model_folders import make_binsight_folder, make_model_folder

HEADS = Heads(16, Calibration("corn", 5, 1.5, 0.9, 0.8), ("board", "disk", "fan"))
State = dict[str, torch.Tensor]
Written = tuple[Checkpoint, BinNet]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return make_binsight_folder(tmp_path_factory.mktemp("models") / "m", HEADS)


def rewritten(written: Written, folder: Path, change: Callable[[State], State] | None = None, **told: Any) -> Path:
    """A copy of the folder with other weights, and other keys of config.json (and no fingerprint)."""
    shutil.copytree(written[0].folder, folder)
    config = json.loads((folder / "config.json").read_text()) | told
    kept = {key: value for key, value in config.items() if key not in ("fingerprint", "identity") or key in told}
    (folder / "config.json").write_text(json.dumps(kept))
    if change:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    return folder


# What is written


def test_a_folder_holds_what_the_contract_says(written: Written) -> None:
    folder = written[0].folder
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "binsight-model"
    assert config["architecture"] == "test_efficientnet"
    assert config["heads"] == {
        "embedding": {"dim": 16},
        "count": {"kind": "corn", "max_count": 5, "temperature": 1.5, "coverage": 0.9, "threshold": 0.8},
        "label": {"classes": ["board", "disk", "fan"]},
    }
    assert config["preprocess"]["fit"] == "squash"
    assert (config["training"], config["licence"]) == ({"seed": 0}, "Apache-2.0")
    assert config["fingerprint"] == written[0].fingerprint
    assert (folder / "README.md").read_text() == "# Card\n"
    names = {name.partition(".")[0] for name in load_file(folder / "model.safetensors")}
    assert names == {"backbone", "embedding", "count", "label"}


def test_all_of_it_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        opened, _ = make_binsight_folder(tmp_path / "m", HEADS)
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in opened.folder.iterdir()} == {
        "README.md": "0o640", "config.json": "0o640", "model.safetensors": "0o640",
    }  # fmt: skip


def test_it_is_read_again_as_it_was(written: Written) -> None:
    opened = open_folder(written[0].folder)
    assert opened == written[0]
    assert opened.heads == HEADS
    assert opened.licence == "Apache-2.0"
    assert opened.config.preprocess.mean == (0.5, 0.4, 0.3)
    pixels = network.example_pixels((64, 64), 4)
    wanted, came = network.answers_of(written[1], pixels), network.answers_of(network.load(opened), pixels)
    for name, value in wanted.items():
        assert abs(came[name] - value).max() < 0.01 * abs(value).max(), name  # half width


def test_at_full_width_nothing_is_lost(tmp_path: Path) -> None:
    opened, net = make_binsight_folder(tmp_path / "m", HEADS, half=False)
    again = network.load(opened).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in net.state_dict().items())


def test_half_width_is_for_matrices_and_never_for_the_first_nor_for_what_it_cannot_hold(tmp_path: Path) -> None:
    opened, net = make_binsight_folder(tmp_path / "m", HEADS)
    state, first = load_file(opened.weights), "backbone.conv_stem.weight"
    assert state[first].dtype == torch.float32
    assert torch.equal(state[first], net.get_parameter(first))
    for name, value in state.items():
        is_half = value.ndim > 1 and name not in network.early_kernels(net)
        assert value.dtype == (torch.float16 if is_half else torch.int64 if value.ndim == 0 else torch.float32), name
    net.get_parameter("count.weight").data[0, 0] = 1e6
    write_model(tmp_path / "m", net, opened.config, HEADS, training={}, licence="MIT", card="")
    assert load_file(opened.weights)["count.weight"][0, 0] == 1e6


def test_the_first_stages_are_a_small_share_of_every_backbone() -> None:
    net = network.build(random_config("mobilenetv2_100", Preprocess(size=(64, 64))), {"count": 11})
    names = network.early_kernels(net)
    assert {name.split(".")[1] if "blocks" not in name else name[9:17] for name in names} == {
        "conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2",
    }  # fmt: skip
    sizes = {name: value.numel() for name, value in net.backbone.named_parameters(prefix="backbone")}
    assert sum(sizes[name] for name in names) < 0.03 * sum(sizes.values())


def test_a_model_is_replaced_whole_and_nothing_is_left_behind(tmp_path: Path) -> None:
    first, _ = make_binsight_folder(tmp_path / "m", HEADS, seed=0)
    (tmp_path / "m" / "openvino").mkdir()
    second, _ = make_binsight_folder(tmp_path / "m", HEADS, seed=1)
    assert first.fingerprint != second.fingerprint == open_folder(tmp_path / "m").fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert not (tmp_path / "m" / "openvino").exists()  # it was the first one's


def test_a_licence_text_is_written_beside_the_card(tmp_path: Path, written: Written) -> None:
    opened, net = written
    write_model(
        tmp_path / "m", net, opened.config, HEADS, training={}, licence="CC-BY-NC-SA-3.0", card="", licence_text="Some rights"
    )
    assert (tmp_path / "m" / "LICENSE").read_text() == "Some rights"


def test_what_cannot_be_written_leaves_the_folder_as_it_was(tmp_path: Path, written: Written) -> None:
    opened, net = written
    old, _ = make_binsight_folder(tmp_path / "m", HEADS)
    broken = network.build(opened.config, HEADS.sizes, weights=net.state_dict())
    broken.get_parameter("count.bias").data[0] = float("nan")
    everything: dict[str, Any] = {"training": {}, "licence": "MIT", "card": ""}
    with pytest.raises(UnknownModel, match=r"'count\.bias' holds values that are not finite"):
        write_model(tmp_path / "m", broken, opened.config, HEADS, **everything)
    with pytest.raises(BadSettings, match=r"want the network's heads .*'count': 6.*, got {'embedding': 16}"):
        write_model(tmp_path / "m", net, opened.config, Heads(16), **everything)
    with pytest.raises(BadSettings, match="want 'training' to be a JSON object without NaN"):
        write_model(tmp_path / "m", net, opened.config, HEADS, **everything | {"training": {"loss": float("nan")}})
    assert open_folder(tmp_path / "m") == old
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, written: Written) -> None:
    opened, net = written
    everything: dict[str, Any] = {"training": {}, "licence": "MIT", "card": ""}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    timms = make_model_folder(tmp_path / "timm")
    for folder in (tmp_path / "photos", timms, tmp_path / "photos" / "a.jpg"):
        with pytest.raises(BadSettings, match="is there and is no binsight model; give a new folder"):
            write_model(folder, net, opened.config, HEADS, **everything)
    with pytest.raises(CannotBeDone, match="cannot write the model"):
        write_model(tmp_path / "photos" / "a.jpg" / "m", net, opened.config, HEADS, **everything)


# The fingerprint


def test_only_what_changes_a_vector_changes_the_fingerprint(written: Written, tmp_path: Path) -> None:
    def with_added(name: str) -> Callable[[State], State]:
        return lambda state: state | {name: state[name] + 1}

    opened = written[0]
    same = [
        open_folder(rewritten(written, tmp_path / "count", with_added("count.bias"))),
        open_folder(rewritten(written, tmp_path / "label", with_added("label.weight"))),
    ]
    assert {one.fingerprint for one in same} == {opened.fingerprint}
    assert len({opened.identity, *(one.identity for one in same)}) == 3
    other = open_folder(rewritten(written, tmp_path / "embedding", with_added("embedding.bias")))
    assert other.fingerprint != opened.fingerprint
    assert other.identity != opened.identity


def test_heads_that_are_calibrated_anew_or_left_out_leave_the_vectors(written: Written, tmp_path: Path) -> None:
    opened = written[0]
    alone = network.build(opened.config, {"embedding": 16}, weights=opened)
    bare = write_model(tmp_path / "bare", alone, opened.config, Heads(16), training={}, licence="MIT", card="")
    assert bare.fingerprint == opened.fingerprint
    assert bare.heads == Heads(16)


def test_a_count_head_that_is_damaged_is_found(written: Written, tmp_path: Path) -> None:
    folder = shutil.copytree(written[0].folder, tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    save_file(state | {"count.bias": state["count.bias"] + 1}, folder / "model.safetensors")
    with pytest.raises(UnknownModel, match=r"is damaged: config\.json says identity "):
        open_folder(folder)


# What training starts from


def test_training_goes_on_from_a_folder_of_ours(written: Written) -> None:
    opened = written[0]
    stored = load_file(opened.weights)
    net = network.build(opened.config, {"embedding": 16, "count": 9}, weights=opened)
    state = net.state_dict()
    assert torch.equal(state["embedding.weight"], stored["embedding.weight"].float())  # of the same size: kept
    assert state["count.weight"].shape == (9, net.features_dim)  # of another: new
    for name, value in stored.items():
        if name.startswith("backbone."):
            assert torch.equal(state[name], value.to(state[name].dtype)), name


# What is refused


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"heads": {"depth": {}}}, "a head 'depth' is not one this version knows; it knows embedding, count, label"),
        ({"heads": [1]}, "want 'heads', an object; got list"),
        ({"heads": {"embedding": 16}}, "want the head 'embedding' to be an object, got int"),
        ({"heads": {"embedding": {"dim": 0}}}, "want the embedding's 'dim' from 1 to 65536, got 0"),
        ({"heads": {"embedding": {"dim": 10**9}}}, "want the embedding's 'dim' from 1 to 65536, got 1000000000"),
        ({"heads": {"embedding": {"dim": True}}}, "want the embedding's 'dim'"),
        ({"heads": {"count": {"kind": "softmax"}}}, "the count head: want a count head's calibration with "),
        ({"heads": {"count": HEADS.to_json()["count"] | {"kind": "coral"}}}, "the count head: want a count head of kind"),
        (
            {"heads": {"count": HEADS.to_json()["count"] | {"max_count": 10**9}}},
            "the count head: want max_count from 1 to 1000",
        ),
        ({"heads": {"label": {"classes": ["a"]}}}, "want the label head's 'classes', two or more different names"),
        ({"heads": {"label": {"classes": ["a", "a"]}}}, "want the label head's 'classes'"),
        ({"heads": {"label": {"classes": ["a", 1]}}}, "want the label head's 'classes'"),
        ({"heads": {"label": {}}}, "want the label head's 'classes'"),
        ({"heads": {"embedding": {"dim": 16}}}, r"holds '(count|label)\.\w+', which belongs to no head"),
        ({"heads": HEADS.to_json() | {"embedding": {"dim": 32}}}, r"want embedding\.weight \(32, features\) .*got \(16, 256\)"),
        ({"architecture": "hf-hub:evil/model"}, "want 'architecture'"),
        ({"model_args": {"checkpoint_path": "x.pth"}}, "may not hold 'checkpoint_path'"),
        ({"pooling": "max"}, "'pooling' is 'max', but 'model_args' say 'default'"),
        ({"preprocess": {"size": [64, 64]}}, "want the keys"),
        ({"preprocess": None}, "want the keys"),
        ({"licence": "a\nb"}, "want 'licence', a line"),
        ({"fingerprint": "0" * 64}, "is damaged: .* says fingerprint 0000"),
        ({"format": ["binsight-model"]}, "is not one this version reads"),
    ],
)
def test_a_config_that_is_wrong_is_refused_in_one_line(
    written: Written, tmp_path: Path, told: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownModel, match=message) as caught:
        open_folder(rewritten(written, tmp_path / "m", **told))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {k: v for k, v in s.items() if k != "count.weight"},
            r"want count\.weight \(6, features\).*got None and \(6,\)",
        ),
        (lambda s: s | {"label.weight": torch.ones(4, 256)}, r"want label\.weight \(3, features\)"),
        (lambda s: s | {"depth.weight": torch.ones(1)}, r"holds 'depth\.weight', which belongs to no head"),
        (lambda s: s | {"label.bias": torch.tensor([0, 1, float("inf")])}, r"'label\.bias' holds values that are not finite"),
        (lambda s: s | {k: v * float("nan") for k, v in s.items() if k.endswith("conv_stem.weight")}, "not finite"),
    ],
)
def test_weights_that_are_not_what_the_config_says_are_refused(
    written: Written, tmp_path: Path, change: Callable[[State], State], message: str
) -> None:
    with pytest.raises(UnknownModel, match=message):
        open_folder(rewritten(written, tmp_path / "m", change))


def test_weights_that_do_not_fit_the_architecture_are_refused(written: Written, tmp_path: Path) -> None:
    lacking = rewritten(written, tmp_path / "a", lambda s: {k: v for k, v in s.items() if not k.endswith("conv_stem.weight")})
    with pytest.raises(UnknownModel, match=r"lacks 'backbone\.conv_stem\.weight'"):
        network.load(open_folder(lacking))
    narrow = rewritten(written, tmp_path / "b", lambda s: s | {"count.weight": torch.ones(6, 8)})
    with pytest.raises(UnknownModel, match=r"'count\.weight' is \(6, 8\), the network's is \(6, 256\)"):
        network.load(open_folder(narrow))
    with pytest.raises(UnknownModel, match="knows no architecture 'resnte50'"):
        network.load(open_folder(rewritten(written, tmp_path / "c", architecture="resnte50")))


def test_heads_go_through_json_unchanged() -> None:
    for heads in (HEADS, Heads(), Heads(8), Heads(classes=("a", "b"))):
        assert Heads.from_json(json.loads(json.dumps(heads.to_json()))) == heads
    assert HEADS.sizes == {"embedding": 16, "count": 6, "label": 3}
    assert Heads(count=Calibration("softmax", 5)).sizes == {"count": 7}


def test_a_sound_folder_is_sealed_without_a_change(written: Written, tmp_path: Path) -> None:
    folder = rewritten(written, tmp_path / "m")
    checkpoint.seal(folder)
    assert open_folder(folder).fingerprint == written[0].fingerprint
