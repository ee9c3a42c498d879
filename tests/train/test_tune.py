"""Hyperparameter search: real trials of a small network; studies that processes share, and that are killed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

from binsight.errors import BadSettings, BadSource, CannotBeDone, TrainingDiverged
from binsight.train import tune, tune_report, tune_space, tune_study, tune_trials
from binsight.train.config import TrainConfig
from binsight.train.run import train
from binsight.train.tune_space import Parameter
from tests.train.tuning import arguments, quick, start, trials_of, wait_for, write_data

NONE = optuna.pruners.NopPruner()
LR = optuna.distributions.FloatDistribution(0.001, 0.1, log=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tuning")
    write_data(folder)
    before = os.environ.get("BINSIGHT_CACHE")
    os.environ["BINSIGHT_CACHE"] = str(folder / "cache")
    yield folder
    if before is None:
        del os.environ["BINSIGHT_CACHE"]
    else:
        os.environ["BINSIGHT_CACHE"] = before


def job_of(root: Path, tmp_path: Path, **changed: Any) -> tune.TuneJob:
    """A search of its own folder and storage; changed: of make_job, or settings."""
    options: dict[str, Any] = {"space": str(root / "space.toml"), "storage": str(tmp_path / "study.log"), "trials": 3}
    options |= {name: changed.pop(name) for name in ("space", "trials", "storage", "pruner", "workers") if name in changed}
    return tune.make_job(quick(root, out=tmp_path / "out", **changed), study="s", **options)


# ---- whole studies


def test_a_study_is_repeated_by_its_seed_and_gone_on_with_where_it_ended(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    whole = tune.tune(job_of(root, tmp_path / "a", trials=4), say=said.append)
    tune.tune(job_of(root, tmp_path / "b", trials=2))
    cut = tune.tune(job_of(root, tmp_path / "b", trials=4))
    rows = [[(trial.number, trial.state, trial.params, trial.value) for trial in one.trials()] for one in (whole, cut)]
    assert rows[0] == rows[1]
    assert [row[1] for row in rows[0]] == [TrialState.COMPLETE] * 4
    assert len({row[2]["lr"] for row in rows[0]}) == 4
    assert said[0] == "study s: 0 of 4 trials are finished; searching lr, dropout"

    best = max(rows[0], key=lambda row: row[3] or 0.0)
    kept = sorted(path.name for path in (tmp_path / "a/out/trials").iterdir())
    assert kept == [f"{best[0]:04}"]  # the best model, and no checkpoint
    wanted = tune.config_from_study(str(tmp_path / "a/study.log"), "s", {"epochs": 3})
    assert (wanted["lr"], wanted["dropout"], wanted["epochs"], wanted["freeze"]) == (*best[2].values(), 3, "backbone")
    assert "out" not in wanted
    assert "threads" not in wanted

    report = tune_report.summary(whole, str(tmp_path / "a/study.log"), tmp_path / "a/out")
    files = tune_report.write_results(whole, report, tmp_path / "a/out")
    assert report["best"]["trial"] == best[0]
    assert report["best"]["figures"]["accuracy"] == whole.study.best_trial.user_attrs["accuracy"]
    assert {"rmse", "rmse_mean", "score", "epochs_run", "took_s"} <= set(report["best"]["figures"])
    assert sum(report["importances"].values()) == pytest.approx(1.0, abs=1e-3)
    assert set(report["importances"]) == {"lr", "dropout"}
    table = list(csv.DictReader((tmp_path / "a/out/trials.csv").read_text(encoding="utf-8").splitlines()))
    assert [(int(row["number"]), float(row["score"]), float(row["param lr"])) for row in table] == [
        (row[0], row[3], row[2]["lr"]) for row in rows[0]
    ]
    names = {"trials.csv", "best.json", "importances.json", "history.png", "slices.png", "importances.png"}
    assert {file.name for file in files} == names
    for file in files:
        if file.suffix == ".png":
            width, height = struct.unpack(">II", file.read_bytes()[16:24])
            assert width > 300
            assert height > 150
    file = tmp_path / "a/out/best.json"
    assert tune.config_from_study(str(file), None, {}) == report["best"]["config"]
    (tmp_path / "best.json").write_text('{"config": []}', encoding="utf-8")
    with pytest.raises(BadSettings, match="want 'config' to be an object, got list"):
        tune.config_from_study(str(tmp_path / "best.json"), None, {})
    TrainConfig.checked(quick(root) | report["best"]["config"])


@pytest.mark.torture
def test_two_processes_finish_exactly_the_trials_of_a_study_together(root: Path, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.log")
    given = arguments(root, "--trials=5", "--json", storage=storage, out=tmp_path / "out")
    jobs = [start(root, given), start(root, given)]
    ended = [job.communicate(timeout=240) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], ended
    trials = [trial for trial in trials_of(storage) if trial.state != TrialState.WAITING]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    assert len({trial.params["lr"] for trial in trials}) == 5
    told = [json.loads(out) for out, _ in ended]
    assert max(one["trials"]["complete"] for one in told) == 5  # the last to end has seen all
    begun = [err.count("training and") for _, err in ended]
    assert sum(begun) == 5


def test_processes_that_begin_at_once_find_no_half_written_folder(tmp_path: Path) -> None:
    """The second one reads which study the folder is of while the first one writes it."""
    for turn in range(30):
        job = cast(tune.TuneJob, SimpleNamespace(out=tmp_path / f"{turn}", study="s"))  # all that is asked of it
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(tune._take_folder, [job] * 8))


@pytest.mark.torture
def test_two_workers_share_a_journal_and_a_killed_ones_trial_is_run_again_by_the_other(root: Path, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.log")
    given = arguments(root, "--trials=3", "--workers=2", storage=storage, out=tmp_path / "out", epochs=16)
    job = start(root, given)

    def busy() -> list[optuna.trial.FrozenTrial]:
        if not Path(storage).exists() or b"\n" not in Path(storage).read_bytes():
            return []
        try:
            trials = trials_of(storage)
        except KeyError:  # no study yet
            return []
        return [trial for trial in trials if trial.state == TrialState.RUNNING and len(trial.intermediate_values) > 1]

    wait_for(lambda: len(busy()) > 0, job)
    victim = busy()[0]
    os.kill(victim.user_attrs["worker"]["pid"], signal.SIGKILL)
    _, err = job.communicate(timeout=240)
    assert job.returncode == 3, err
    assert "workers were ended from outside (the first by signal 9: was memory short?)" in err
    trials = trials_of(storage)
    counted = [trial for trial in trials if tune_study.counts(trial)]
    assert [trial.state.is_finished() for trial in counted if trial.state != TrialState.WAITING] == [True] * 3
    lost = next(trial for trial in trials if trial.number == victim.number)
    again = next(trial for trial in trials if trial.user_attrs.get("retried") == [victim.number])
    assert (lost.state, lost.value, again.params) == (TrialState.FAIL, None, victim.params)
    assert not (tmp_path / f"out/trials/{victim.number:04}.run").exists()


LOOKS_AFTER_WORKERS = """
import json, sys
from binsight.train import tune, tune_report
job = tune.make_job(json.loads(sys.argv[1]), study="s", storage=sys.argv[2], space=sys.argv[3], workers=2)
job.about()
print([name for name in ("torch", "timm", "lightning", "matplotlib") if name in sys.modules])
"""


def test_who_only_looks_after_workers_needs_no_torch(root: Path, tmp_path: Path) -> None:
    """It would cost a search's first trial as long as its workers take to load it, and a gigabyte of memory."""
    values = json.dumps(quick(root, out=tmp_path / "out"), default=str)
    command = [sys.executable, "-c", LOOKS_AFTER_WORKERS, values, str(tmp_path / "l"), str(root / "space.toml")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.torture
def test_a_killed_search_goes_on_with_the_trial_it_was_killed_in(root: Path, tmp_path: Path) -> None:
    storage = str(tmp_path / "study.log")
    job = start(root, arguments(root, "--trials=2", storage=storage, out=tmp_path / "out", epochs=500))
    wait_for(lambda: Path(storage).exists() and Path(storage).read_bytes().count(b'"step"') > 1, job)
    job.kill()
    job.communicate()
    with Path(storage).open("ab") as journal:
        journal.write(b'{"op_code":4,"torn')  # as a writer that died in the middle would leave it
    killed = trials_of(storage)[0]
    assert killed.state == TrialState.RUNNING
    shared = tune_study.load(storage, "s")
    assert tune_study.reclaim(shared) == [killed.number]
    trial = tune_study.claim(shared, 2, (0,))
    assert trial is not None
    assert {"lr": trial.suggest_float("lr", 0.001, 0.1, log=True)} == {"lr": killed.params["lr"]}
    assert [one.state.name for one in shared.trials()] == ["FAIL", "RUNNING"]
    tune_study.give_back(shared, trial)


def test_a_trial_worse_than_the_others_is_pruned_after_its_first_epochs(root: Path, tmp_path: Path) -> None:
    job = job_of(root, tmp_path, trials=6, epochs=9)
    shared = tune_study.join(job.storage, job.study, job.about(), NONE)
    good = {step: 5.0 + step for step in range(9)}
    distributions: dict[str, Any] = {"lr": LR, "dropout": optuna.distributions.FloatDistribution(0.0, 0.5)}
    for n in range(5):
        done = optuna.create_trial(
            value=13.0, params={"lr": 0.01, "dropout": n / 10}, distributions=distributions, intermediate_values=good
        )
        shared.study.add_trial(done)
    said: list[str] = []
    pruned = tune.tune(job, say=said.append).trials()[-1]
    assert (pruned.state, pruned.number, sorted(pruned.intermediate_values)) == (TrialState.PRUNED, 5, [0, 1, 2])
    assert pruned.user_attrs["epochs_run"] == 3
    assert said[-1] == "trial 5  pruned in epoch 3"
    assert not list((tmp_path / "out/trials").iterdir())


# ---- trials that fail


def test_a_trial_that_diverges_or_runs_out_of_memory_fails_and_the_study_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[TrainConfig] = []

    def some_fail(config: TrainConfig, **options: Any) -> Any:
        begun.append(config)
        if len(begun) == 1:
            raise TrainingDiverged("the loss is nan in epoch 0, step 3")
        if len(begun) == 2:
            torch.empty(2**55, dtype=torch.uint8)
        return train(config, **options)

    monkeypatch.setattr(tune_trials, "train", some_fail)
    shared = tune.tune(job_of(root, tmp_path, trials=3))
    trials = shared.trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert trials[0].user_attrs["failure"] == "the loss is nan in epoch 0, step 3"
    assert trials[1].user_attrs["failure"].startswith("out of memory: ")
    report = tune_report.summary(shared, "x", tmp_path / "out")
    assert report["trials"] == {"complete": 1, "pruned": 0, "failed": 2, "killed": 0, "running": 0}


def test_a_real_loss_that_is_no_number_fails_its_trial(root: Path, tmp_path: Path) -> None:
    backbone = shutil.copytree(root / "backbone", tmp_path / "backbone")
    weights = load_file(backbone / "model.safetensors")
    spoilt = {name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()}
    save_file(spoilt, backbone / "model.safetensors")
    job = job_of(root, tmp_path, trials=2, backbone=f"local-dir:{backbone}", freeze="none")
    trials = tune.tune(job).trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2  # one failure does not end the study
    assert all("the loss is nan" in trial.user_attrs["failure"] for trial in trials)


def test_a_wrong_call_ends_the_search_at_its_first_trial(root: Path, tmp_path: Path) -> None:
    job = job_of(root, tmp_path, data=str(tmp_path))
    with pytest.raises(BadSource):
        tune.tune(job)
    assert [tune_study.counts(trial) for trial in trials_of(job.storage)] == [False, True]  # given back: waits for the next


def test_an_interrupted_trial_is_given_back(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: TrainConfig, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune_trials, "train", interrupted)
    job = job_of(root, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(job)
    first, second = trials_of(job.storage)
    assert (first.state, second.state, second.params) == (TrialState.FAIL, TrialState.WAITING, first.params)


def test_a_search_begins_no_trial_after_its_time(root: Path, tmp_path: Path) -> None:
    values = quick(root, out=tmp_path / "out")
    job = tune.make_job(
        values, study="s", storage=str(tmp_path / "l"), space=str(root / "space.toml"), trials=1, timeout_s=1e-6
    )
    assert tune.tune(job).trials() == []


# ---- shared studies


def about(**changed: Any) -> dict[str, Any]:
    return {"space": {"lr": {"type": "float"}}, "base": {"epochs": 3, "backbone": "/a/b/net"}, "split": "1"} | changed


def test_a_study_is_joined_only_for_the_same_space_settings_and_split(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.log")
    tune_study.join(storage, "s", about(), NONE)
    tune_study.join(storage, "s", about(base={"epochs": 3, "backbone": "/elsewhere/net/"}), NONE)
    for changed, told in (
        ({"split": "2"}, "another split"),
        ({"space": {"lr": {"type": "int"}}}, r"another search space \(lr\)"),
        ({"base": {"epochs": 4, "backbone": "net"}}, "begun with epochs 3, got 4"),
        ({"base": {"epochs": 3, "backbone": "other"}}, "begun with backbone 'net', got 'other'"),
    ):
        with pytest.raises(BadSettings, match=told):
            tune_study.join(storage, "s", about(**changed), NONE)


def test_no_more_trials_are_taken_than_a_study_has_though_more_wait(tmp_path: Path) -> None:
    shared = tune_study.join(str(tmp_path / "study.log"), "s", about(), NONE)
    for _ in range(3):  # two processes that look at once may add one ticket too many
        shared.study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    taken = [tune_study.claim(shared, 2, (0,)) for _ in range(3)]
    assert [one.number if one else None for one in taken] == [0, 1, None]
    assert taken[0] is not None
    tune_study.give_back(shared, taken[0])  # without parameters there is nothing to try again: the next ticket moves up
    following = tune_study.claim(shared, 2, (0,))
    assert following is not None
    assert following.number == 2
    tune_study.fail(shared, following, "diverged")
    assert tune_study.claim(shared, 2, (0,)) is None


GREEDY = """
import sys, json, optuna
from binsight.train import tune_study
about = {"space": {}, "base": {}, "split": ""}
print("ready", flush=True)
sys.stdin.readline()
shared = tune_study.join(sys.argv[1], "s", about, optuna.pruners.NopPruner())
took = []
while (trial := tune_study.claim(shared, 25, (0,))) is not None:
    took.append(trial.number)
    if len(took) == 1:
        print("took one", flush=True)
        sys.stdin.readline()
    shared.study.tell(trial, trial.suggest_float("lr", 0.001, 0.1, log=True))
print(json.dumps(took))
"""


@pytest.mark.parametrize("storage", ["{}/study.log", "sqlite:///{}/study.db"])
def test_processes_that_take_trials_as_fast_as_they_can_take_each_once(tmp_path: Path, storage: str) -> None:
    command = [sys.executable, "-c", GREEDY, storage.format(tmp_path)]
    jobs = [subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
    for told in ("took one\n", None):  # all make the storage at once; each holds a trial before they race for the rest
        for job in jobs:
            assert job.stdin is not None
            job.stdin.write("\n")
            job.stdin.flush()
        for job in jobs if told else ():
            assert job.stdout is not None
            assert job.stdout.readline() == told
    took = [json.loads(job.communicate(timeout=120)[0]) for job in jobs]
    trials = [trial for trial in trials_of(storage.format(tmp_path)) if trial.state != TrialState.WAITING]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 25
    assert sorted(number for numbers in took for number in numbers) == [trial.number for trial in trials]
    assert all(took)


def test_parameters_that_kill_their_process_are_tried_three_times(tmp_path: Path) -> None:
    shared = tune_study.join(str(tmp_path / "study.log"), "s", about(), NONE)
    values = []
    for _ in range(4):
        trial = tune_study.claim(shared, 1, (0,))
        assert trial is not None
        values.append(trial.suggest_float("lr", 0.001, 0.1, log=True))
        tune_study.give_back(shared, trial)
    assert values[0] == values[1] == values[2] != values[3]


def test_a_process_of_another_machine_or_a_living_one_is_not_taken_for_dead() -> None:
    mine = tune_study.this_process()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = tune_study._started(child.pid)
        theirs = mine | {"pid": child.pid, "start": began}
        assert began
        assert not tune_study.is_gone(theirs)
        child.kill()
        while tune_study._started(child.pid):  # a zombie counts as gone
            time.sleep(0.01)
        assert tune_study.is_gone(theirs)
    assert not tune_study.is_gone(mine)
    assert tune_study.is_gone(mine | {"start": "1"})  # its number was given to another process
    assert tune_study.is_gone(mine | {"boot": "before"})
    assert not tune_study.is_gone(theirs | {"host": "elsewhere"})
    assert not tune_study.is_gone(theirs | {"space": "pid:[1]"})  # a container's: not to be seen from here


def test_a_trial_whose_process_died_before_it_had_a_name_is_run_again_after_a_minute(tmp_path: Path) -> None:
    shared = tune_study.join(str(tmp_path / "study.log"), "s", about(), NONE)
    shared.study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    shared.storage.set_trial_state_values(shared.trials()[0]._trial_id, TrialState.RUNNING)
    assert tune_study.reclaim(shared) == []
    shared.trials()[0].datetime_start = datetime(2020, 1, 1)
    assert tune_study.reclaim(shared) == [0]


def test_a_databases_trial_that_fell_silent_is_run_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    shared = tune_study.join(url, "s", about(), NONE)
    trial = tune_study.claim(shared, 1, (0,))
    assert trial is not None
    lr = trial.suggest_float("lr", 0.001, 0.1, log=True)
    trial.set_user_attr("worker", tune_study.this_process() | {"host": "elsewhere"})
    with tune_study.heartbeat(shared, trial):
        assert tune_study.claim(shared, 1, (0,)) is None
    import sqlite3

    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    database.close()
    again = tune_study.claim(shared, 1, (0,))
    assert again is not None
    assert (again.number, again.suggest_float("lr", 0.001, 0.1, log=True)) == (1, lr)


def test_a_storage_that_is_none_is_told_and_never_written_to(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a journal\n")
    for storage, kind, told in (
        (str(other), BadSettings, "is no study journal"),
        (str(tmp_path / "none.log"), BadSettings, "no such study storage"),
        (f"sqlite:///{tmp_path}/none.db", BadSettings, "no such study storage"),
        ("sqlite:///:memory:", BadSettings, "a study in memory ends with its process"),
        ("nonsense://", BadSettings, "--storage: want a file"),
        ("postgresql+pg8000://user:secret@127.0.0.1:1/x", CannotBeDone, r"user:\*\*\*@127.0.0.1:1/x"),
    ):
        with pytest.raises(kind, match=told):
            tune.config_from_study(storage, "s", {})
    assert other.read_text() == "not a journal\n"
    assert not (tmp_path / "none.db").exists()


def test_a_study_that_is_not_there_or_has_no_best_trial_is_told(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.log")
    tune_study.join(storage, "one", about(), NONE)
    with pytest.raises(BadSettings, match="no trial of the study 'one' is complete"):
        tune.config_from_study(storage, None, {})
    tune_study.join(storage, "two", about(), NONE)
    for name, told in ((None, "which study in .*: it holds one, two"), ("three", "no study 'three' in .*: it holds one, two")):
        with pytest.raises(BadSettings, match=told):
            tune.config_from_study(storage, name, {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("a/b.log", ("a/b.log", None)), ("a/b.log#s 1", ("a/b.log", "s 1")), ("sqlite:///x.db#", ("sqlite:///x.db", None))],
)
def test_an_address_names_storage_and_study(text: str, wanted: tuple[str, str | None]) -> None:
    assert tune.study_address(text) == wanted


# ---- spaces


def test_the_built_in_spaces_are_those_of_the_source_projects_and_a_wide_one(root: Path) -> None:
    assert tune_space.read_space("default") == {
        "lr": Parameter("float", 0.001, 0.1, log=True),
        "batch_size": Parameter("categorical", choices=(16, 32, 64, 128, 256, 512)),
        "epochs": Parameter("int", 10, 20),
    }
    base = TrainConfig.checked(quick(root, freeze="none"))
    for name in ("default", "wide"):
        tune_space.check_space(tune_space.read_space(name), base)
    assert len(tune_space.read_space("wide")) >= 15


@pytest.mark.parametrize("name", ["default", "wide"])
def test_a_space_that_is_shown_is_read_again(tmp_path: Path, name: str) -> None:
    space = tune_space.read_space(name)
    (tmp_path / "s.toml").write_text(tune_space.space_toml(space), encoding="utf-8")
    assert tune_space.read_space(str(tmp_path / "s.toml")) == space


def test_a_built_in_space_is_cut_to_what_the_data_and_the_call_allow(root: Path, tmp_path: Path) -> None:
    values = {name: value for name, value in quick(root).items() if name not in ("batch_size", "epochs")}
    job = tune.make_job(values, study="s", storage=str(tmp_path / "l"))
    assert job.space["batch_size"].choices == (16,)  # of 18 training pictures
    assert set(tune.make_job(values | {"epochs": 1}, study="s", storage="l").space) == {"lr", "batch_size"}
    del values["freeze"]
    assert "freeze" in tune.make_job(values, study="s", storage="l", space="wide").space
    cut = tune.make_job(values | {"backbone": "binsight_vit_tiny"}, study="s", storage="l", space="wide")
    assert "freeze" not in cut.space  # it starts from random numbers


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "want settings as name = "),
        ("lr = 3", 'lr: want type = "float", "int" or "categorical", got 3'),
        ('lr = {type = "normal"}', 'lr: want type = .* got "normal"'),
        ('lr = {type = "float", low = 0.1, high = 0.01}', "lr: want low ≤ high, got 0.1 and 0.01"),
        ('lr = {type = "float", low = 0.1}', "lr: want a number as high, got null"),
        ('lr = {type = "float", low = 0.0, high = 0.1, log = true}', "lr: log = true wants a low above 0"),
        ('lr = {type = "float", low = 0.1, high = nan}', "lr: want low ≤ high"),
        ('lr = {type = "float", low = 0.1, high = 0.2, steps = 3}', "lr: 'steps' is nothing that type 'float' has"),
        ('lr = {type = "float", low = 0.1, high = 11.0}', "search space: lr: Input should be less than or equal to 10"),
        ('rate = {type = "float", low = 0.1, high = 0.2}', "rate: no setting of that name"),
        ('seed = {type = "int", low = 0, high = 9}', "seed: not to be searched for"),
        ('device = {type = "categorical", choices = ["cpu", "cuda"]}', "device: not to be searched for"),
        ('epochs = {type = "float", low = 1.0, high = 3.0}', "epochs: wants whole numbers"),
        ('epochs = {type = "int", low = 1.5, high = 3}', "epochs: want a whole number as low, got 1.5"),
        ('epochs = {type = "int", low = 1, high = 9, step = 0}', "epochs: want a step above 0"),
        ('count_head = {type = "categorical", choices = []}', "count_head: want choices = "),
        ('count_head = {type = "categorical", choices = ["corn", "corn"]}', "a choice is named twice"),
        ('count_head = {type = "categorical", choices = ["corn", "coral"]}', "search space: count-head: .*'coral'"),
        ('count_head = {type = "categorical", choices = ["corn", "none"]}', "count_head: 'none' takes counts out of the score"),
        ('embedding_weight = {type = "float", low = 0.0, high = 1.0}', "embedding_weight: 0 leaves a head"),
        ('max_count = {type = "int", low = 3, high = 9}', "max_count: the score is of bins with 0 to 5 items"),
        ('batch_size = {type = "int", low = 4, high = 64}', "at most the 18 training pictures fit in a batch, got 64"),
        ('dropout = {type = "float", low = 0.0, high = 0.5}\n[', "no readable search space"),
    ],
)
def test_a_bad_space_is_told_before_the_first_trial(root: Path, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(text, encoding="utf-8")
    values = {name: value for name, value in quick(root).items() if name not in ("batch_size", "epochs")}
    with pytest.raises(BadSettings, match=told):
        tune.make_job(values, study="s", storage=str(tmp_path / "l"), space=str(file))


def test_what_is_fixed_is_not_searched_for_too(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"lr: both searched for in .* and fixed"):
        job_of(root, tmp_path, lr=0.1)
    with pytest.raises(BadSettings, match="nothing is left to search"):
        tune.make_job(quick(root, lr=0.1), study="s", storage="l")


def test_a_folder_is_of_one_study(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/study.json").write_text('{"study": "other"}')
    with pytest.raises(BadSettings, match="is of the study 'other'; give 's' an --out of its own"):
        tune.tune(job_of(root, tmp_path))


def test_a_search_on_many_devices_a_trial_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="gives each trial one device"):
        job_of(root, tmp_path, devices=2)
