"""Two models in one: the vectors of the first, the counts of the second, or of several together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from binsight import network
from binsight.checkpoint import Heads, open_folder
from binsight.cli import run
from binsight.counting import Calibration, fit_calibration
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, UnknownModel
from binsight.model_folder import recalibrate, write_joined, write_model
from binsight.network import joined
from binsight.weights import eight_bits
from tests.model_folders import make_binsight_folder, make_model_folder
from tests.train.drawn import counted

COUNTS = Heads(None, Calibration("softmax", 5, 1.5, 0.9, 0.8), ("board", "disk"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Vectors, counts, and the two joined."""
    folder = tmp_path_factory.mktemp("joined")
    first, _ = make_binsight_folder(folder / "vectors", Heads(16), seed=1)
    second, _ = make_binsight_folder(folder / "counts", COUNTS, seed=2)
    write_joined(folder / "both", first, second, licence="CC BY-NC-SA 3.0", licence_text="its text")
    return folder / "vectors", folder / "counts", folder / "both"


def test_vectors_are_the_firsts_and_counts_and_labels_the_seconds(models: tuple[Path, Path, Path]) -> None:
    vectors, counts, both = (load_encoder(str(folder), device="cpu", precision="fp32") for folder in models)
    shown = np.random.default_rng(0).integers(0, 256, (9, *both.preprocess.size, 3), dtype=np.uint8)
    said, first, second = both.encode_pixels(shown), vectors.encode_pixels(shown), counts.encode_pixels(shown)
    np.testing.assert_allclose(said.vectors, first.vectors, atol=2e-4)
    assert said.counts is not None
    assert second.counts is not None
    np.testing.assert_allclose([c.probabilities for c in said.counts], [c.probabilities for c in second.counts], atol=2e-3)
    assert [label[0][0] for label in said.labels or []] == [label[0][0] for label in second.labels or []]


def test_the_fingerprint_is_the_firsts_so_its_stores_stay_good(models: tuple[Path, Path, Path]) -> None:
    vectors, counts, both = (open_folder(folder) for folder in models)
    assert both.fingerprint == vectors.fingerprint
    assert len({vectors.identity, counts.identity, both.identity}) == 3


def test_a_changed_counter_is_noticed_though_it_changes_no_vector(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    state = load_file(models[2] / "model.safetensors")
    name = next(one for one in state if one.startswith("counter.") and state[one].is_floating_point())
    state[name] = state[name] + 1
    for file in models[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UnknownModel, match="identity"):
        open_folder(tmp_path)


def test_cards_licence_and_training_of_both_are_kept(models: tuple[Path, Path, Path]) -> None:
    config = json.loads((models[2] / "config.json").read_text())
    assert config["heads"]["counter"] == {}
    assert config["licence"] == "CC BY-NC-SA 3.0"
    assert set(config["training"]) == {"vectors", "counts"}
    assert (models[2] / "LICENSE").read_text() == "its text"
    card = (models[2] / "README.md").read_text()
    for folder in models[:2]:
        assert (folder / "README.md").read_text().strip() in card


def test_models_that_do_not_fit_are_refused(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    vectors, counts = open_folder(models[0]), open_folder(models[1])
    with pytest.raises(BadSettings, match="neither a count nor a label head"):
        joined(counts, vectors)
    other = open_folder(make_model_folder(tmp_path / "other", architecture="test_resnet"))
    with pytest.raises(BadSettings, match="one architecture"):
        joined(other, counts)


def test_the_command_writes_the_folder(
    models: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    code = run(["join", "--vectors", str(models[0]), "--counts", str(models[1]), "--out", str(out), "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == open_folder(models[0]).fingerprint
    assert isinstance(network.load(open_folder(out)).counter, torch.nn.Module)


# ---- several counters


CORN = Calibration("corn", 5, 0.7, 0.9, 0.6)


def logits_of(folder: Path, shown: NDArray[np.uint8], head: str = "count") -> NDArray[np.float32]:
    return network.answers_of(network.load(open_folder(folder)), torch.from_numpy(shown))[head]


def pictures(side: int, n: int = 7) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["softmax", "corn"])
def test_several_counters_give_the_mean_of_their_tempered_logits(tmp_path: Path, kind: str) -> None:
    heats = (1.5, 0.5, 1.0)
    first, _ = make_binsight_folder(tmp_path / "vectors", Heads(16), seed=1)
    calibrations = [Calibration("corn" if kind == "corn" else "softmax", 5, heat, 0.9, 0.5 + heat / 10) for heat in heats]
    others = [
        make_binsight_folder(tmp_path / f"c{seed}", Heads(None, one, ("board", "disk")), seed=seed)[0]
        for seed, one in enumerate(calibrations, start=2)
    ]
    made = write_joined(tmp_path / "all", first, *others, licence="x")
    assert made.fingerprint == first.fingerprint
    assert made.heads == Heads(16, replace(calibrations[0], temperature=1.0, threshold=0.65), ("board", "disk"), counters=3)
    told = json.loads((made.folder / "config.json").read_text())
    assert told["heads"]["counter"] == {"members": 3}
    assert len(told["training"]["counts"]) == 3
    assert "4 models in one" in (made.folder / "README.md").read_text()
    shown = pictures(64)
    wanted = np.mean([logits_of(one.folder, shown) / heat for one, heat in zip(others, heats, strict=True)], axis=0)
    np.testing.assert_allclose(logits_of(made.folder, shown), wanted, atol=5e-3)
    labels = np.mean([logits_of(one.folder, shown, "label") for one in others], axis=0)
    np.testing.assert_allclose(logits_of(made.folder, shown, "label"), labels, atol=5e-3)
    encoded = load_encoder(str(made.folder), device="cpu", precision="fp32").encode_pixels(shown)
    assert encoded.counts is not None
    probabilities = calibrations[0].counts(wanted * heats[0])  # the first one's temperature divides them again
    np.testing.assert_allclose(
        [count.probabilities for count in encoded.counts], [count.probabilities for count in probabilities], atol=5e-3
    )


def test_a_model_with_two_counters_lends_both(tmp_path: Path) -> None:
    vectors, _ = make_binsight_folder(tmp_path / "v", Heads(16), seed=1)
    count = Heads(None, Calibration("softmax", 5))
    a, b, c = (make_binsight_folder(tmp_path / name, count, seed=seed)[0] for seed, name in enumerate("abc", start=2))
    two = write_joined(tmp_path / "two", vectors, a, b, licence="x")
    again = write_joined(tmp_path / "again", vectors, two, licence="x")
    shown = pictures(64)
    np.testing.assert_allclose(logits_of(again.folder, shown), logits_of(two.folder, shown), atol=1e-6)
    three = write_joined(tmp_path / "three", vectors, two, c, licence="x")
    assert three.heads is not None
    assert three.heads.counters == 3
    wanted = (logits_of(two.folder, shown) + logits_of(c.folder, shown)) / 2  # each model has one voice
    np.testing.assert_allclose(logits_of(three.folder, shown), wanted, atol=5e-3)


def test_the_last_counters_may_look_at_the_mirror_image(tmp_path: Path) -> None:
    vectors, _ = make_binsight_folder(tmp_path / "v", Heads(16), seed=1)
    count = Heads(None, Calibration("softmax", 5))
    a, b = (make_binsight_folder(tmp_path / name, count, seed=seed)[0] for seed, name in enumerate("ab", start=2))
    shown = pictures(64)
    mirrored = np.ascontiguousarray(shown[:, :, ::-1])
    both = write_joined(tmp_path / "both", vectors, a, b, licence="x", mirrored=1)
    assert json.loads((both.folder / "config.json").read_text())["heads"]["counter"] == {"members": 2, "mirrored": 1}
    wanted = (logits_of(a.folder, shown) + logits_of(b.folder, mirrored)) / 2
    np.testing.assert_allclose(logits_of(both.folder, shown), wanted, atol=5e-3)
    assert np.abs(logits_of(both.folder, mirrored) - wanted).max() > 0.05
    one = write_joined(tmp_path / "one", vectors, a, licence="x", mirrored=1)
    np.testing.assert_allclose(logits_of(one.folder, shown), logits_of(a.folder, mirrored), atol=5e-3)
    exported = load_encoder(str(both.folder), device="cpu", precision="fp32").encode_pixels(shown)
    assert exported.counts is not None
    logits = logits_of(both.folder, shown)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose([count.probabilities for count in exported.counts], chances[:, :6], atol=5e-3)
    with pytest.raises(BadSettings, match="look at the mirror image; join those that it was joined from"):
        joined(vectors, both)
    with pytest.raises(BadSettings, match="want from 0 to 2 counters that look at the mirror image, got 3"):
        joined(vectors, a, b, mirrored=3)


def test_counters_that_tell_other_outcomes_apart_are_refused(tmp_path: Path) -> None:
    vectors, _ = make_binsight_folder(tmp_path / "v", Heads(16), seed=1)
    first, *others = (
        make_binsight_folder(tmp_path / name, heads, seed=2)[0]
        for name, heads in (
            ("a", Heads(None, Calibration("softmax", 5))), ("b", Heads(None, Calibration("softmax", 6))),
            ("c", Heads(None, CORN)),
            ("d", Heads(None, Calibration("softmax", 5), ("board", "disk"))), ("e", Heads(None, None, ("board", "disk"))),
        )
    )  # fmt: skip
    for other in others[:2]:
        with pytest.raises(BadSettings, match="count heads of one kind, max_count and coverage"):
            joined(vectors, first, other)
    with pytest.raises(BadSettings, match="the same classes"):
        joined(vectors, first, others[2])
    with pytest.raises(BadSettings, match="count heads of one kind"):
        joined(vectors, others[2], others[3])


@pytest.mark.parametrize("members", [0, 17, "2", True, None])
def test_a_config_with_an_impossible_number_of_counters_is_refused(members: object) -> None:
    told = {"count": Calibration("softmax", 5).to_json(), "counter": {"members": members}}
    with pytest.raises(UnknownModel, match="'members' from 1 to 16"):
        Heads.from_json(told)


@pytest.mark.parametrize("mirrored", [-1, 3, "1", True])
def test_a_config_with_an_impossible_number_of_mirrored_counters_is_refused(mirrored: object) -> None:
    told = {"count": Calibration("softmax", 5).to_json(), "counter": {"members": 2, "mirrored": mirrored}}
    with pytest.raises(UnknownModel, match="'mirrored' from 0 to its 2 members"):
        Heads.from_json(told)


def test_counters_are_calibrated_together_on_the_validation_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the model answers them, in whatever arithmetic it does; the vectors and all weights stay as they were."""
    source = counted(tmp_path / "data", most=5)
    for seed, name in enumerate("vab"):
        heads = Heads(16) if name == "v" else Heads(None, Calibration("softmax", 5, 1.0, 0.8))
        make_binsight_folder(tmp_path / name, heads, seed=seed)
    options = ["join", "--vectors", f"{tmp_path}/v", "--counts", f"{tmp_path}/a", "--counts", f"{tmp_path}/b"]
    assert run([*options, "--out", f"{tmp_path}/plain"]) == 0
    assert "--data and --split fix them anew" in capsys.readouterr().err
    assert run([*options, "--out", f"{tmp_path}/m", "--data", source["data"], "--split", str(source["split"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    made, plain = open_folder(tmp_path / "m"), open_folder(tmp_path / "plain")
    assert made.fingerprint == plain.fingerprint
    assert made.heads is not None
    assert plain.heads is not None
    held = sorted((tmp_path / "data").glob("*.png"))[16:]
    shown = np.stack([made.config.preprocess.pixels(path.read_bytes()) for path in held])
    truth = [number % 5 + 1 for number in range(16, 24)]
    wanted = fit_calibration(logits_of(tmp_path / "plain", shown), truth, kind="softmax", max_count=5, coverage=0.8)
    assert made.heads.count is not None
    assert made.heads.count.temperature == pytest.approx(wanted.temperature, rel=0.1)
    assert made.heads.count.threshold == pytest.approx(wanted.threshold, abs=0.02)
    assert made.heads.count.coverage == 0.8
    assert made.heads.count.temperature != plain.heads.count.temperature  # type: ignore[union-attr]  # it has one as well
    before, after = load_file(plain.weights), load_file(made.weights)
    assert all(torch.equal(before[name], after[name]) for name in before)
    training = json.loads((tmp_path / "m" / "config.json").read_text())["training"]
    assert training["calibration"] == {"data": source["data"], "split": str(source["split"]), "part": "val"}


def test_pictures_to_calibrate_on_want_their_split(
    models: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["join", "--vectors", str(models[0]), "--counts", str(models[1]), "--out", str(tmp_path / "m")]
    assert run([*options, "--data", str(tmp_path)]) == 2
    assert "want --data and --split together" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_calibration_of_another_head_is_refused(models: tuple[Path, Path, Path]) -> None:
    with pytest.raises(BadSettings, match="want a calibration of"):
        recalibrate(open_folder(models[2]), CORN, note={})
    with pytest.raises(BadSettings, match="no count head to calibrate"):
        recalibrate(open_folder(models[0]), CORN, note={})


@pytest.mark.parametrize("wrong", ["data", "split", "part"])
def test_a_model_that_is_there_stays_when_the_pictures_to_calibrate_on_cannot_be_had(
    models: tuple[Path, Path, Path], tmp_path: Path, wrong: str
) -> None:
    source = counted(tmp_path / "data")
    if wrong == "part":
        table = source["split"].read_text().replace(",val,", ",test,")
        source["split"].write_text(table)
    data = str(tmp_path / "nowhere") if wrong == "data" else source["data"]
    split = str(tmp_path / "none.csv") if wrong == "split" else str(source["split"])
    first = ["join", "--vectors", str(models[0]), "--counts", str(models[1])]
    assert run([*first, "--out", str(tmp_path / "m")]) == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    for out in ("m", "new"):
        assert run([*first, "--counts", str(models[1]), "--out", str(tmp_path / out), "--data", data, "--split", split]) == 2
    assert {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_pictures_that_cannot_be_calibrated_on_are_named(
    models: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = counted(tmp_path / "data")
    (tmp_path / "data" / "20.png").write_bytes(b"no picture")
    first = ["join", "--vectors", str(models[0]), "--counts", str(models[1]), "--out", str(tmp_path / "m")]
    assert run([*first, "--data", source["data"], "--split", str(source["split"])]) == 1
    assert "refused: 20.png: " in capsys.readouterr().err
    assert open_folder(tmp_path / "m").heads is not None


@pytest.mark.parametrize(("place", "value", "message"), [
    (("label", "classes"), ["disk", "board"], "is damaged: config.json says identity"),
    (("count", "threshold"), 0.5, "is damaged: config.json says identity"),
    (("count", "temperature"), 1e-320, "want a temperature from 0.0001 to 10000"),
    (("count", "kind"), "corn", "want count.weight"),
])  # fmt: skip
def test_edited_heads_are_noticed(
    models: tuple[Path, Path, Path], tmp_path: Path, place: tuple[str, str], value: object, message: str
) -> None:
    """They say what the answers mean: other classes or another temperature would be wrong answers without a word."""
    for file in models[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["heads"][place[0]][place[1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownModel, match=message):
        open_folder(tmp_path)


def test_a_full_disk_under_a_model_is_told_and_leaves_nothing(models: tuple[Path, Path, Path], small_disk: Path) -> None:
    command = ["join", "--vectors", str(models[0]), "--counts", str(models[1]), "--out", str(small_disk / "m")]
    assert run(command) == 3
    assert list(small_disk.iterdir()) == []


# ---- counters in eight bits


def test_counters_in_eight_bits_take_half_the_space_and_say_the_same(tmp_path: Path) -> None:
    first, _ = make_binsight_folder(tmp_path / "vectors", Heads(16), seed=1)
    others = [make_binsight_folder(tmp_path / f"c{seed}", COUNTS, seed=seed)[0] for seed in (2, 3)]
    wide = write_joined(tmp_path / "wide", first, *others, licence="x")
    small = write_joined(tmp_path / "small", first, *others, licence="x", int8=True)
    assert small.fingerprint == first.fingerprint == wide.fingerprint
    assert small.identity != wide.identity
    state, whole = load_file(small.weights), load_file(wide.weights)
    numbers = {name for name, value in state.items() if value.dtype == torch.int8}
    early = network.early_kernels(network.load(small))
    assert numbers == {name for name in whole if name.startswith("counter.") and whole[name].ndim > 1 and name not in early}
    for name in numbers:
        values, steps = whole[name].float().flatten(1), state[f"{name}.scale"][:, None]
        assert torch.equal(steps[:, 0], values.abs().amax(1) / 127)
        assert ((state[name].flatten(1) * steps - values).abs() <= 0.501 * steps).all(), name
    assert small.weights.stat().st_size < 0.75 * wide.weights.stat().st_size
    shown = pictures(64)
    np.testing.assert_allclose(logits_of(small.folder, shown), logits_of(wide.folder, shown), atol=0.02)
    np.testing.assert_array_equal(logits_of(small.folder, shown, "embedding"), logits_of(wide.folder, shown, "embedding"))


def test_rows_of_zeros_and_of_the_smallest_numbers_are_stored_as_zeros() -> None:
    numbers, steps = eight_bits(np.array([[0, 0], [1e-44, 0], [3e-38, -3e-38]], np.float32))
    assert numbers.tolist() == [[0, 0], [0, 0], [127, -127]]
    assert (numbers * steps[:, None])[2].tolist() == pytest.approx([3e-38, -3e-38], rel=1e-5)


def test_counters_that_are_not_finite_are_refused_in_eight_bits_too(tmp_path: Path) -> None:
    first, _ = make_binsight_folder(tmp_path / "vectors", Heads(16), seed=1)
    second, _ = make_binsight_folder(tmp_path / "counts", COUNTS, seed=2)
    net, heads = joined(first, second)
    next(value for name, value in net.named_parameters() if name == "counter.conv_head.weight").data[0, 0] = torch.nan
    with pytest.raises(UnknownModel, match="not finite"):
        write_model(tmp_path / "small", net, first.config, heads, training={}, licence="x", card="", int8=True)
    assert not (tmp_path / "small").exists()


def test_a_new_calibration_leaves_counters_in_eight_bits(tmp_path: Path) -> None:
    first, _ = make_binsight_folder(tmp_path / "vectors", Heads(16), seed=1)
    second, _ = make_binsight_folder(tmp_path / "counts", COUNTS, seed=2)
    small = write_joined(tmp_path / "small", first, second, licence="x", int8=True)
    again = recalibrate(small, Calibration("softmax", 5, 2.0, 0.9, 0.7), note={}, folder=tmp_path / "again")
    ours, theirs = load_file(again.weights), load_file(small.weights)
    for name, value in theirs.items():
        if value.dtype == torch.int8:
            assert torch.equal(ours[name], value), name
            torch.testing.assert_close(ours[f"{name}.scale"], theirs[f"{name}.scale"], rtol=1e-6, atol=0)


def test_the_command_stores_counters_in_eight_bits(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    arguments = ["join", "--vectors", str(models[0]), "--counts", str(models[1]), "--out"]
    assert run([*arguments, str(tmp_path / "small"), "--int8"]) == 0
    assert run([*arguments, str(tmp_path / "wide")]) == 0
    assert {torch.int8} <= {value.dtype for value in load_file(tmp_path / "small" / "model.safetensors").values()}
    assert torch.int8 not in {value.dtype for value in load_file(tmp_path / "wide" / "model.safetensors").values()}


def test_a_scale_that_does_not_fit_its_weight_is_damage(tmp_path: Path) -> None:
    first, _ = make_binsight_folder(tmp_path / "vectors", Heads(16), seed=1)
    second, _ = make_binsight_folder(tmp_path / "counts", COUNTS, seed=2)
    small = write_joined(tmp_path / "small", first, second, licence="x", int8=True)
    state = load_file(small.weights)
    name = next(name for name, value in state.items() if value.dtype == torch.int8)
    for wrong in (state[f"{name}.scale"][:-1].clone(), state[f"{name}.scale"].double()):
        save_file(state | {f"{name}.scale": wrong}, small.weights)
        with pytest.raises(UnknownModel, match="wants one a row"):
            open_folder(small.folder)
    save_file({key: value for key, value in state.items() if key != f"{name}.scale"}, small.weights)
    with pytest.raises(UnknownModel, match="identity"):  # whole numbers without a scale are those numbers
        open_folder(small.folder)
    save_file(state | {f"{name}.scale": torch.full_like(state[f"{name}.scale"], torch.inf)}, small.weights)
    with pytest.raises(UnknownModel, match="not finite"):
        open_folder(small.folder)
