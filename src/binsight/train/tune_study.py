"""A study that many processes and machines share: opened, joined, its trials handed out once each, those of the dead retried.

A study of N trials has N tickets: waiting trials, of which only the first N by number that count may be taken. Whatever
happens between two looks at the storage, a ticket's place can only move forward, so never more than N are run.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from binsight.errors import BadSettings, CannotBeDone, MissingExtra

try:
    import optuna
    from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
    from optuna.storages import BaseStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise MissingExtra("optuna", extra="train") from error

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

RETRIES = 2  # times that the parameters of a trial whose process died are tried again
_ABOUT, _WORKER, _FAILURE, _RETRIED = "binsight", "worker", "failure", "retried"
_HEARTBEAT_S, _GRACE_S = 30, 120  # of databases: how often a trial says that it lives, and how long it may be silent
_NAMELESS_S = 60  # a running trial without a worker's name lost it in the instant between the two
_NEW_FILE_S = 10.0  # how long several processes may take to make the tables of a new database


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A study and the storage it lies in."""

    study: optuna.Study
    storage: BaseStorage

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials of these states, or of all, by number, as the storage has them now."""
        return self.study.get_trials(deepcopy=False, states=states or None)


# ---- storage


def is_database(storage: str) -> bool:
    """Whether it is a database's URL; anything else is a journal file."""
    return "://" in storage


def told(storage: str) -> str:
    """The storage without its password."""
    if not is_database(storage):
        return storage
    from sqlalchemy.engine import make_url

    return make_url(storage).render_as_string(hide_password=True)


def open_storage(storage: str, *, create: bool) -> BaseStorage:
    """The storage of a journal file or a database URL.

    Raises BadSettings for a file of another kind, a URL of none, or nothing there (create=False); CannotBeDone when it
    cannot be reached or written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return _database(storage, create) if is_database(storage) else _journal(Path(storage).absolute(), create)


def _journal(file: Path, create: bool) -> BaseStorage:
    try:
        if not file.exists() and not create:
            raise BadSettings(f"no such study storage: {file}; `binsight tune --storage` makes it")
        if file.exists():
            with file.open("rb") as opened:
                first = opened.readline(1 << 20)
            if first and b'"op_code"' not in first:
                raise BadSettings(f"{file} is no study journal; give another --storage")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(_Journal(str(file)))
    except OSError as error:
        raise CannotBeDone(f"cannot use {file} as --storage: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        if isinstance(error, BadSettings):
            raise
        raise BadSettings(f"{file} is no study journal, or a damaged one: {error}; give another --storage") from error


def _database(url: str, create: bool) -> BaseStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        kind = url.partition("://")[0]
        raise BadSettings(f"--storage: want a file, sqlite:///FILE or postgresql://…, got a URL of {kind!r}") from error
    if is_sqlite and parsed.database in (None, "", ":memory:"):
        raise BadSettings(f"--storage: a study in memory ends with its process; give sqlite:///FILE, got {url}")
    if is_sqlite and not create and not Path(str(parsed.database)).is_file():
        raise BadSettings(f"no such study storage: {parsed.database}; `binsight tune --storage` makes it")
    options = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
    until = time.monotonic() + _NEW_FILE_S
    while True:
        try:
            with _experimental():
                opened = RDBStorage(
                    url, engine_kwargs=options, heartbeat_interval=_HEARTBEAT_S, grace_period=_GRACE_S,
                    heartbeat_stale_trial_callback=retry,
                )  # fmt: skip
            if is_sqlite:
                _lock_from_the_start(opened.engine)
            return optuna.storages.get_storage(opened)
        except (SQLAlchemyError, StorageInternalError) as error:  # two processes may be making the same tables
            if time.monotonic() > until or not is_sqlite:
                cause = " ".join(str(error.__cause__ or error).split("\n")[:1])
                raise CannotBeDone(f"cannot use {told(url)} as --storage: {cause}") from error
            time.sleep(0.2)
        except ImportError as error:
            raise CannotBeDone(f"no driver is installed for {told(url)}: {error}; install it, or give a file") from error


def _lock_from_the_start(engine: Engine) -> None:
    """SQLite has no row locks: a transaction that reads a waiting trial and then takes it has to be alone from its read on.

    Without it three processes took one trial twice in a study of 25 (`BEGIN` as SQLAlchemy 2, pysqlite, advises).
    """
    from sqlalchemy import event

    def connected(connection: Any, _: Any) -> None:  # sqlite3.Connection
        connection.isolation_level = None  # the driver begins nothing of its own

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    engine.dispose()  # connections made before


@final
class _Journal(JournalFileBackend):
    """Optuna's journal file with a lock that dies with its owner, and without the torn line of a writer that died."""

    def __init__(self, file: str) -> None:
        super().__init__(file, lock_obj=_Flock(file + ".lock"))  # type: ignore[arg-type]  # its base class is not exported
        self._whole = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._lock_held(), Path(self._whole).open("r+b") as file:
            file.seek(_whole_bytes(file))
            file.truncate()  # no reader counts a line without an end
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _lock_held(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


def _whole_bytes(file: Any) -> int:  # a binary file that can be sought
    """How many bytes its lines with an end take."""
    end = int(file.seek(0, os.SEEK_END))
    at = end
    while at:
        start = max(0, at - 4096)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        at = start
    return 0


@final
class _Flock:
    """Optuna's own locks outlive a killed owner by 30 seconds and are then taken by force; the kernel frees this one."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._threads = threading.Lock()
        self._held = -1

    def acquire(self) -> bool:
        self._threads.acquire()
        try:
            self._held = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._held, fcntl.LOCK_EX)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        held, self._held = self._held, -1
        if held >= 0:
            os.close(held)
        self._threads.release()


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna calls its heartbeat experimental, since 2.9."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """A storage that went away under way, told as such."""
    try:
        yield
    except StorageInternalError as error:
        cause = str(error.__cause__ or error).split("\n")[0]
        raise CannotBeDone(
            f"the study's storage {told(storage)} does not answer: {cause}; run the same command again"
        ) from error


# ---- studies


def join(storage: str, name: str, about: Mapping[str, Any], pruner: optuna.pruners.BasePruner) -> Shared:
    """The study of this name, made now or begun before. Raises BadSettings when it was begun for something else.

    about: what has to be the same for trials to compare, as JSON: {"space", "base", "split"}.
    """
    opened = open_storage(storage, create=True)
    try:
        study = optuna.create_study(storage=opened, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True)
    except (DuplicatedStudyError, StorageInternalError):  # another process made it in this instant
        study = optuna.load_study(storage=opened, study_name=name, pruner=pruner)
    has_trials = bool(study.get_trials(deepcopy=False))  # looked at first: whoever adds one has said before what it is about
    begun = study.user_attrs.get(_ABOUT)
    if begun is None:
        if has_trials:
            raise BadSettings(f"the study {name!r} in {told(storage)} was not begun by binsight; give another --study")
        study.set_user_attr(_ABOUT, dict(about))
        begun = study.user_attrs[_ABOUT]
    _check_same(name, begun, json.loads(json.dumps(about)))
    return Shared(study, opened)


def _check_same(name: str, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    if begun.get("split") != asked["split"]:
        raise BadSettings(f"the study {name!r} was begun with another split; scores would not compare: give another --study")
    if begun.get("space") != asked["space"]:
        changed = sorted(
            one for one in {*begun["space"], *asked["space"]} if begun["space"].get(one) != asked["space"].get(one)
        )
        raise BadSettings(
            f"the study {name!r} was begun with another search space ({', '.join(changed)}); give another --study"
        )
    for key in {*begun["base"], *asked["base"]}:
        before, now = begun["base"].get(key), asked["base"].get(key)
        if key == "backbone":  # the same model may lie elsewhere on another machine
            before, now = (str(one).rstrip("/").rpartition("/")[2].removeprefix("local-dir:") for one in (before, now))
        if before != now:
            raise BadSettings(f"the study {name!r} was begun with {key} {before!r}, got {now!r}; give another --study")


def load(storage: str, name: str | None) -> Shared:
    """A study to read. name: None for the only one. Raises BadSettings, naming those that are there."""
    opened = open_storage(storage, create=False)
    names = sorted(optuna.get_all_study_names(opened))
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        wanted = "which study" if name is None else f"no study {name!r}"
        raise BadSettings(f"{wanted} in {told(storage)}: it holds {', '.join(names) or 'none'}; write {told(storage)}#NAME")
    return Shared(optuna.load_study(storage=opened, study_name=name), opened)


def about(shared: Shared) -> dict[str, Any]:
    """What the study was begun with. Raises BadSettings for a study of another program."""
    found = shared.study.user_attrs.get(_ABOUT)
    if not isinstance(found, dict):
        raise BadSettings(f"the study {shared.study.study_name!r} was not begun by binsight")
    return found


# ---- trials


def counts(trial: FrozenTrial) -> bool:
    """Whether it is one of the study's trials; one whose process died is not, for it is run again."""
    return trial.state != TrialState.FAIL or _FAILURE in trial.user_attrs


def is_finished(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and counts(trial)


def claim(shared: Shared, trials: int, sampler_seed: Sequence[int]) -> optuna.Trial | None:
    """The next trial, for this process alone; None when all are done or running elsewhere.

    A trial's parameters follow from the seed, its number and the trials before it: a resumed study does not repeat draws.
    """
    while True:
        reclaim(shared)
        counted = [trial for trial in shared.trials() if counts(trial)]
        for trial in counted[:trials]:
            if trial.state == TrialState.WAITING and _take(shared, trial):
                seed = (*sampler_seed, trial.number)
                shared.study.sampler = optuna.samplers.TPESampler(seed=_number(seed), multivariate=True, constant_liar=True)
                # What Study.ask does, which would take any waiting trial, also one beyond the study's size.
                shared.study._thread_local.cached_all_trials = None
                return optuna.Trial(shared.study, trial._trial_id)
        if len(counted) >= trials:
            return None
        shared.study.add_trial(optuna.create_trial(state=TrialState.WAITING))


def _number(parts: Sequence[int]) -> int:
    import numpy as np

    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _take(shared: Shared, trial: FrozenTrial) -> bool:
    try:
        if not shared.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            return False
    except UpdateFinishedTrialError:
        return False
    shared.storage.set_trial_user_attr(trial._trial_id, _WORKER, this_process())
    return True


def fail(shared: Shared, trial: optuna.Trial, reason: str) -> None:
    """Count the trial as failed: its parameters do not work."""
    trial.set_user_attr(_FAILURE, reason)
    shared.study.tell(trial, state=TrialState.FAIL)


def give_back(shared: Shared, trial: optuna.Trial) -> None:
    """Have the trial run again, by whoever comes next: what stopped it was not its parameters."""
    with suppress(UpdateFinishedTrialError):
        if shared.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
            retry(shared.study, shared.storage.get_trial(trial._trial_id))


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """A waiting trial with the parameters of one whose process died, unless they were tried often enough."""
    retried = [*trial.user_attrs.get(_RETRIED, []), trial.number]
    if not trial.params or len(retried) > RETRIES:
        return
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING, params=trial.params, distributions=trial.distributions, user_attrs={_RETRIED: retried}
        )
    )


def reclaim(shared: Shared) -> list[int]:
    """Fail the running trials whose process is known to be dead, and have them run again; their numbers.

    Known are processes of this machine; those of others where the storage has heartbeats (databases).
    """
    found: list[int] = []
    for trial in shared.trials(TrialState.RUNNING):
        if _is_lost(trial):
            with suppress(UpdateFinishedTrialError):  # another process was faster
                if shared.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
                    found.append(trial.number)
                    retry(shared.study, trial)
    with _experimental():
        optuna.storages.fail_stale_trials(shared.study)
    return found


def _is_lost(trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get(_WORKER)
    if worker is not None:
        return is_gone(worker)
    began = trial.datetime_start
    return began is not None and (datetime.now() - began).total_seconds() > _NAMELESS_S


@contextmanager
def heartbeat(shared: Shared, trial: optuna.Trial) -> Iterator[None]:
    """While it lasts, a database hears that the trial lives."""
    record = getattr(shared.storage, "record_heartbeat", None)
    if record is None:
        yield
        return
    is_over = threading.Event()

    def beat() -> None:
        while True:
            with suppress(StorageInternalError):  # a database that is busy now is told the next time
                record(trial._trial_id)
            if is_over.wait(_HEARTBEAT_S):
                return

    thread = threading.Thread(target=beat, name="binsight-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


# ---- processes


def this_process() -> dict[str, Any]:
    """Who runs a trial: enough to see later, from the same machine, whether it still does."""
    found = {
        "host": socket.gethostname(),
        "machine": _read("/etc/machine-id"),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
    }
    return found | {"space": _pid_space(), "pid": os.getpid(), "start": _started(os.getpid())}


def is_gone(worker: Mapping[str, Any]) -> bool:
    """Whether the process is known to have ended; False for one that cannot be seen from here."""
    mine = this_process()
    if (worker.get("host"), worker.get("machine")) != (mine["host"], mine["machine"]):
        return False
    if worker.get("boot") != mine["boot"]:
        return True
    return worker.get("space") == mine["space"] and _started(int(worker["pid"])) != worker.get("start")


def _started(pid: int) -> str:
    """When the process began, in the kernel's ticks, which tells it from a later one of its number; empty for none."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""  # field 22 of proc(5); zombies are gone


def _pid_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
