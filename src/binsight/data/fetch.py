"""Bring chosen bins of ABID here: photo and metadata of each stem, in parallel, checked, and resumed where it ended."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from binsight.data.abid import BUCKET, IMAGES, METADATA, BinRecord, image_uri, metadata_uri, parse_metadata
from binsight.data.files import PARTIAL, Files, make_folder, open_files, write_atomically
from binsight.data.source import Refusal
from binsight.errors import BadImage, BadSettings, BadSource, CannotBeDone
from binsight.images import load
from binsight.records import Metadata

Progress = Callable[[int, int], None]
STEM = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
UNREACHABLE_IN_A_ROW = 8  # then the source is gone, and the job ends
STALE_S = 3_600  # a partial file of this age has no writer any more
MOST_IN_A_RANGE = 10_000_000


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What was done. fetched, present: bins; notes: on bins that were taken although something about them contradicts."""

    source: str
    out: str
    fetched: int
    present: int
    refused: tuple[Refusal, ...]
    notes: tuple[Refusal, ...]
    fetched_bytes: int
    took_s: float

    def to_json(self) -> Metadata:
        """What `data fetch --json` prints."""
        return {
            "source": self.source,
            "out": self.out,
            "fetched": self.fetched,
            "present": self.present,
            "refused": [{"path": one.path, "error": one.error} for one in self.refused],
            "notes": [{"path": one.path, "note": one.error} for one in self.notes],
            "fetched_bytes": self.fetched_bytes,
            "took_s": round(self.took_s, 3),
        }


def fetch(
    stems: Mapping[str, int | None],
    out: Path,
    *,
    source: str = BUCKET,
    workers: int = 16,
    progress: Progress = lambda _done, _total: None,
) -> FetchReport:
    """Copy the photos and metadata of stems from a source in ABID's layout into a folder of the same layout.

    stems: each with the count that a list gives it, or None; another EXPECTED_QUANTITY is noted. A bin is here when its
    metadata can be read and its photo decodes; such bins are not asked for again. A file counts when it has the size that the
    source gives and passes the same checks; it is written whole or not at all, metadata first. A bin that cannot be had is
    refused with its reason, the others go on. Raises CannotBeDone when the source cannot be reached or the disk is full.
    """
    if not stems:
        raise BadSource("no stems to fetch; want a list, a range such as 1:100, or a file that names some")
    if not 1 <= workers <= 256:
        raise BadSettings(f"want workers from 1 to 256, got {workers}")
    files = open_files(source)
    for folder in (IMAGES, METADATA):
        _clean(make_folder(out / folder))
    started = time.monotonic()
    tally = _Tally()
    with ThreadPoolExecutor(workers, "binsight-fetch") as pool:
        try:
            jobs = (pool.submit(_bring, files, out, stem, count) for stem, count in stems.items())
            for done, outcome in enumerate(_finished(jobs, 4 * workers), start=1):
                tally.add(outcome)
                progress(done, len(stems))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    took_s = time.monotonic() - started
    refused, notes = (tuple(sorted(some, key=lambda one: one.path)) for some in (tally.refused, tally.notes))
    return FetchReport(files.root, str(out), tally.fetched, tally.present, refused, notes, tally.fetched_bytes, took_s)


def stems_of_list(file: Path) -> dict[str, int | None]:
    """Stems of a file: one a line, a JSON list, or a JSON object of lists by count, {"1": ["00014", …], "2": […]}.

    An entry may be a path: `data/metadata/00014.json` means the stem 00014. Raises BadSource for anything else.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadSource(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSource(f"{file} is not UTF-8: {error}") from error
    if not text.lstrip().startswith(("{", "[")):
        return checked_stems(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSource(f"{file} is not JSON: {error}") from error
    by_count = document if isinstance(document, dict) else {"": document}
    stems: dict[str, int | None] = {}
    for key, names in by_count.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadSource(
                f'want lists of stems in {file}, such as {{"1": ["00014"]}}, got {json.dumps(names)[:60]} under {key!r}'
            )
        count = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else None
        for stem in checked_stems(names):
            if stem in stems and stems[stem] != count:
                raise BadSource(f"{file} names {stem} under two counts, {stems[stem]} and {count}")
            stems[stem] = count
    return stems


def stems_of_range(text: str) -> dict[str, int | None]:
    """Stems FIRST:LAST, both included, as the bucket writes them: five digits at least.

    >>> list(stems_of_range("99998:100001"))
    ['99998', '99999', '100000', '100001']
    """
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    if found is None or not 0 <= int(found[2]) - int(found[1]) < MOST_IN_A_RANGE:
        raise BadSettings(f"want a range FIRST:LAST such as 1:100, got {text!r}")
    return {f"{number:05}": None for number in range(int(found[1]), int(found[2]) + 1)}


def checked_stems(names: Iterable[str]) -> dict[str, int | None]:
    """Stems of names or paths, each once. Raises BadSource for one that cannot be a stem."""
    stems: dict[str, int | None] = {}
    for name in names:
        path = PurePosixPath(name.strip())
        stem = path.stem if path.suffix in (".jpg", ".json") else path.name
        if STEM.fullmatch(stem) is None:
            raise BadSource(f"want a stem such as 00014, got {name!r}")
        stems[stem] = None
    return stems


@dataclass(frozen=True, slots=True)
class _Outcome:
    stem: str
    fetched_bytes: int = 0  # 0: it was here
    error: str | None = None
    note: str | None = None
    unreachable: CannotBeDone | None = None


@dataclass(slots=True)
class _Tally:
    fetched: int = 0
    present: int = 0
    fetched_bytes: int = 0
    refused: list[Refusal] = field(default_factory=list)
    notes: list[Refusal] = field(default_factory=list)
    unreachable: int = 0  # in a row

    def add(self, one: _Outcome) -> None:
        self.unreachable = self.unreachable + 1 if one.unreachable is not None else 0
        if one.unreachable is not None and (self.unreachable >= UNREACHABLE_IN_A_ROW or not (self.fetched or self.present)):
            raise CannotBeDone(f"{one.unreachable}; run it again, it goes on where it was") from one.unreachable
        if one.error is not None:
            self.refused.append(Refusal(one.stem, one.error))
            return
        self.fetched_bytes += one.fetched_bytes
        if one.fetched_bytes:
            self.fetched += 1
        else:
            self.present += 1
        if one.note is not None:
            self.notes.append(Refusal(one.stem, one.note))


def _finished(jobs: Iterator[Future[_Outcome]], ahead: int) -> Iterator[_Outcome]:
    """What the jobs give, as they end; so many are handed in ahead."""
    running = set(islice(jobs, ahead))
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for one in ended:
            yield one.result()
        running |= set(islice(jobs, ahead - len(running)))


def _bring(files: Files, out: Path, stem: str, count: int | None) -> _Outcome:
    here = _here(out, stem)
    if here is not None:
        return _Outcome(stem, note=_note(here, count))
    try:
        metadata = _read(files, metadata_uri(stem))
        record = _checked(metadata_uri(stem), parse_metadata, metadata)
        image = _read(files, image_uri(stem))
        _checked(image_uri(stem), load, image)
    except BadImage as error:
        return _Outcome(stem, error=str(error))
    except CannotBeDone as error:
        return _Outcome(stem, error=str(error), unreachable=error)
    # Metadata first: a photo that is here has its record. Not synced: what a power cut spoils is found and fetched again.
    write_atomically(out / metadata_uri(stem), metadata, durable=False)
    write_atomically(out / image_uri(stem), image, durable=False)
    return _Outcome(stem, len(metadata) + len(image), note=_note(record, count))


def _here(out: Path, stem: str) -> BinRecord | None:
    """The record of a bin that is here and sound."""
    try:
        load(out / image_uri(stem))
        return parse_metadata((out / metadata_uri(stem)).read_bytes())
    except (BadImage, OSError, ValueError):
        return None


def _read(files: Files, uri: str) -> bytes:
    try:
        data, size = files.read(uri), files.size_bytes(uri)
    except BadImage as error:
        raise BadImage(f"{uri} {error}") from error
    if len(data) != size:
        raise BadImage(f"{uri} came with {len(data):,} bytes, the source says {size:,}")
    return data


def _checked(uri: str, check: Callable[[bytes], Any], data: bytes) -> Any:  # whatever the check gives
    try:
        return check(data)
    except (BadImage, ValueError) as error:
        raise BadImage(f"{uri}: {error}") from error


def _note(record: BinRecord, count: int | None) -> str | None:
    listed = None if count in (None, record.count) else f"the list says {count}, EXPECTED_QUANTITY {record.count}"
    return "; ".join(note for note in (listed, record.note) if note is not None) or None


def _clean(folder: Path) -> None:
    """Remove what killed jobs left half written."""
    for left in folder.glob(f".*{PARTIAL}"):
        with suppress(FileNotFoundError):  # its writer was done with it
            if time.time() - left.stat().st_mtime > STALE_S:
                left.unlink()
