"""One shard on disk: `NAME.parquet` (id, metadata, counts), `NAME.npy` (unit rows) and `NAME.json`, which commits both.

Each file is written under another name, synced and renamed, the JSON last: it holds the others' sizes and checksums, and one of
itself. A shard without it does not count. Nothing is taken from a file before it matches its checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from binsight.data.files import write_atomically
from binsight.data.part import Part
from binsight.errors import BinsightError, MissingExtra, StoreDamaged, StoreWriteFailed
from binsight.records import Metadata
from binsight.vectors import Vectors, check

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("pyarrow", extra="parquet") from error

FORMAT, VERSION = "binsight-shards", 1
COUNTS = {"count": pa.int32(), "count_low": pa.int32(), "count_high": pa.int32(), "count_expected": pa.float64()}
SCHEMA = pa.schema([("id", pa.string()), ("metadata", pa.string()), *COUNTS.items()])


@dataclass(frozen=True, slots=True)
class ShardFile:
    """What the JSON of a shard says. number: where it stands among all of a folder; of one id the last holds."""

    number: int
    part: int
    parts: int
    rows: int
    dim: int
    fingerprint: str
    parquet_sha256: str
    npy_sha256: str

    @property
    def name(self) -> str:
        return shard_name(self.number, Part(self.part, self.parts))


def shard_name(number: int, part: Part) -> str:
    return f"part-{number:06}-{part.number}of{part.parts}"


def write_shard(
    folder: Path,
    shard: ShardFile,
    ids: Sequence[str],
    texts: Sequence[str],
    counts: Sequence[Metadata],
    vectors: Vectors,
) -> ShardFile:
    """Write the files of a shard; gives it with its checksums. Raises StoreWriteFailed when the system refuses.

    ids, texts, counts: n each; a count may be empty. vectors: (n, dim).
    """
    columns: dict[str, Any] = {"id": list(ids), "metadata": list(texts)}
    columns |= {name: [one.get(name) for one in counts] for name in COUNTS}
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), out, compression="zstd")
    parquet, out = out.getvalue(), io.BytesIO()
    np.save(out, vectors, allow_pickle=False)
    npy = out.getvalue()
    shard = replace(shard, parquet_sha256=hashlib.sha256(parquet).hexdigest(), npy_sha256=hashlib.sha256(npy).hexdigest())
    files = {folder / f"{shard.name}.parquet": parquet, folder / f"{shard.name}.npy": npy}
    files[folder / f"{shard.name}.json"] = sealed(asdict(shard))
    try:
        for path, data in files.items():
            write_file(path, data)
    except StoreWriteFailed:
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return shard


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole and durably. Raises StoreWriteFailed."""
    try:
        write_atomically(path, data)
    except BinsightError as error:
        raise StoreWriteFailed(f"{error}; what is finished stays, and the same job goes on from there") from error


def read_records(folder: Path, shard: ShardFile, *columns: str) -> list[list[Any]]:
    """Columns of a shard's Parquet file. Raises StoreDamaged when a byte of it has changed."""
    path = folder / f"{shard.name}.parquet"
    table = pq.read_table(io.BytesIO(_checked(path, shard.parquet_sha256)), columns=list(columns))
    if table.num_rows != shard.rows:
        raise StoreDamaged(f"{path} has {table.num_rows} rows, its JSON says {shard.rows}")
    return [table.column(name).to_pylist() for name in columns]


def read_vectors(folder: Path, shard: ShardFile) -> Vectors:
    """The rows of a shard: (rows, dim). Raises StoreDamaged when a byte of them has changed."""
    path = folder / f"{shard.name}.npy"
    rows = np.load(io.BytesIO(_checked(path, shard.npy_sha256)), allow_pickle=False)
    if rows.shape != (shard.rows, shard.dim):
        raise StoreDamaged(f"{path} holds {rows.shape}, its JSON says {(shard.rows, shard.dim)}")
    return check(rows, dim=shard.dim)


def _checked(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreDamaged(f"{path} cannot be read: {error.strerror}; index its pictures again into other shards") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreDamaged(f"{path} does not match its checksum; index its pictures again into other shards")
    return data


def read_shard(path: Path) -> ShardFile:
    """What the JSON of a shard says. Raises StoreDamaged."""
    record = unsealed(path)
    names = ShardFile.__dataclass_fields__
    if record.keys() != names.keys():
        raise StoreDamaged(f"{path} is no shard of this version: want {', '.join(names)}")
    return ShardFile(**record)


def sealed(record: Metadata) -> bytes:
    """A record as JSON with a checksum of itself, so that a changed byte shows."""
    check_sum = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return (json.dumps(record | {"checksum": check_sum}, indent=1) + "\n").encode()


def unsealed(path: Path) -> Metadata:
    """The record that `sealed` wrote. Raises StoreDamaged when it is not that any more."""
    try:
        record = json.loads(path.read_bytes())
        check_sum = record.pop("checksum")
        is_sound = check_sum == hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    except OSError as error:
        raise StoreDamaged(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamaged(f"{path} is damaged: no JSON object with a checksum") from error
    if not is_sound:
        raise StoreDamaged(f"{path} is damaged: it does not match its checksum")
    found: Metadata = record
    return found
