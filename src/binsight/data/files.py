"""Where a set's files lie: a local folder, or a prefix of an S3 bucket read through s3fs (the only s3fs import)."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast, final

from binsight.data.folder import list_folder
from binsight.data.retries import ATTEMPTS, Retries
from binsight.data.source import PICTURE_SUFFIXES, Stamp, inside
from binsight.errors import BadImage, BadSource, CannotBeDone, MissingExtra
from binsight.images import read_file

S3 = "s3://"
REQUESTS_AT_ONCE, REQUESTS_AHEAD, MOST_CONNECTIONS = 32, 4_096, 64
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 15
T = TypeVar("T")


class Files(ABC):
    """Files below one root, named by their path relative to it, with forward slashes."""

    root: str
    is_remote = False

    @property
    def retries(self) -> int:
        """How many requests had to be made again so far."""
        return 0

    def give_up(self) -> None:  # noqa: B027, only what makes requests has anything to give up
        """Try no failed request again: whoever wanted it is gone."""

    @abstractmethod
    def listed(self, folder: str) -> tuple[list[str], list[str]] | None:
        """Names of the files and of the folders directly in a folder, sorted; None when there is no such folder.

        The folders of a bucket are what the names of its objects begin with.
        """

    def names(self, folder: str) -> list[str] | None:
        """Names of the files directly in a folder, sorted; None when there is no such folder."""
        found = self.listed(folder)
        return None if found is None else found[0]

    @abstractmethod
    def pictures(self) -> list[str]:
        """Every picture below the root, sorted. Raises BadSource when there is none."""

    @abstractmethod
    def read(self, uri: str) -> bytes:
        """What a file holds. Raises BadImage when it cannot be read, CannotBeDone when the source cannot be reached."""

    def stamped(self, uri: str) -> tuple[bytes, Stamp | None]:
        """What a file holds, and its stamp as it was read; None where that was not told. Raises as `read`."""
        return self.read(uri), None

    @abstractmethod
    def stamps(self, folder: str = "") -> Mapping[str, Stamp]:
        """The stamp of every file below a folder, where a listing gives them; else none of them: ask `stamp`."""

    @abstractmethod
    def stamp(self, uri: str) -> Stamp | None:
        """The stamp of a file as it is now; None when it is not there or cannot be asked."""

    @abstractmethod
    def holds(self, uri: str) -> bool:
        """Whether there is such a file; true too where nobody can tell."""

    def read_all(self, uris: Sequence[str]) -> Iterator[tuple[str, bytes | BadImage]]:
        """(uri, what the file holds or why it cannot be read) of each, in order. Raises CannotBeDone as `read`."""
        for uri in uris:
            yield uri, self._tried(uri)

    def _tried(self, uri: str) -> bytes | BadImage:
        try:
            return self.read(uri)
        except BadImage as error:
            return error

    @abstractmethod
    def size_bytes(self, uri: str) -> int:
        """The size of a file as the source gives it, without reading it. Raises as `read`."""


def open_files(source: str) -> Files:
    """A local folder, or s3://BUCKET[/PREFIX]. Raises BadSource for anything else, MissingExtra without s3fs.

    S3 is read unsigned, as public buckets are; the endpoint is that of the environment's AWS_ENDPOINT_URL. Other options
    of s3fs come from fsspec's own configuration, such as FSSPEC_S3='{"anon": false}' for a private bucket.
    """
    if source.startswith(S3):
        return S3Files(source)
    if "://" in source:
        raise BadSource(f"want a folder, a manifest or s3://BUCKET[/PREFIX], got {source}")
    return LocalFiles(source)


@final
class LocalFiles(Files):
    """A folder of this machine; links that lead out of it are left out."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder).resolve()
        if not self._path.is_dir():
            raise BadSource(f"no such folder: {folder}")
        self.root = str(self._path)

    def listed(self, folder: str) -> tuple[list[str], list[str]] | None:
        path = self._path / folder
        try:
            with os.scandir(path) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
            files = [entry.name for entry in entries if self._is_ours(entry)]
            return files, [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadSource(f"cannot read the folder {path}: {error.strerror}") from error

    def pictures(self) -> list[str]:
        return sorted(picture.uri for picture in list_folder(self._path).pictures)

    def read(self, uri: str) -> bytes:
        return read_file(self._path / uri)[0]

    def stamped(self, uri: str) -> tuple[bytes, Stamp | None]:
        data, found = read_file(self._path / uri)
        return data, Stamp(found.st_size, found.st_mtime_ns)

    def stamps(self, folder: str = "") -> dict[str, Stamp]:  # noqa: ARG002, a folder's listing has no stamps
        return {}

    def stamp(self, uri: str) -> Stamp | None:
        try:
            found = (self._path / uri).stat()
        except OSError:
            return None
        return Stamp(found.st_size, found.st_mtime_ns)

    def holds(self, uri: str) -> bool:
        return os.path.exists(self._path / uri)  # noqa: PTH110, false too where the system refuses to look

    def size_bytes(self, uri: str) -> int:
        try:
            return (self._path / uri).stat().st_size
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror}") from error

    def _is_ours(self, entry: os.DirEntry[str]) -> bool:
        return entry.is_file() and (not entry.is_symlink() or inside(self._path, Path(entry.path)) is not None)


@final
class S3Files(Files):
    """A prefix of a bucket. Requests that fail for a passing reason are made again (`Retries`)."""

    is_remote = True

    def __init__(self, url: str) -> None:
        self._prefix = url.removeprefix(S3).strip("/")  # BUCKET[/PREFIX], as s3fs names things
        if not self._prefix:
            raise BadSource(f"want s3://BUCKET[/PREFIX], got {url}")
        self.root = S3 + self._prefix
        self._system = _s3()
        self._retries = Retries(lambda error: isinstance(error, FileNotFoundError | PermissionError))

    @property
    def retries(self) -> int:
        return self._retries.made

    def give_up(self) -> None:
        self._retries.give_up()

    def listed(self, folder: str) -> tuple[list[str], list[str]] | None:
        base = f"{self._prefix}/{folder}".rstrip("/")
        try:
            found = self._retries.call(lambda: self._system.ls(base, detail=True, refresh=True))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unreachable(error) from error
        names = sorted((name, one["type"]) for one in found if (name := one["name"][len(base) + 1 :].rstrip("/")))
        files, folders = ([name for name, kind in names if kind == wanted] for wanted in ("file", "directory"))
        return (files, folders) if found else None

    def pictures(self) -> list[str]:
        uris = self.stamps()
        found = sorted(uri for uri in uris if Path(uri).suffix.lower() in PICTURE_SUFFIXES)
        if not found:
            raise BadSource(f"no picture under {self.root} ({len(uris)} other files), or no such bucket")
        return found

    def stamps(self, folder: str = "") -> dict[str, Stamp]:
        base = f"{self._prefix}/{folder}".rstrip("/")
        try:
            found = self._retries.call(lambda: self._system.find(base, detail=True, refresh=True))
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._unreachable(error) from error
        start = len(self._prefix) + 1
        return {name[start:]: _stamp_of(one) for name, one in found.items() if name.startswith(base + "/")}

    def stamp(self, uri: str) -> Stamp | None:
        try:
            return _stamp_of(self._info(uri))
        except BadImage:
            return None

    def holds(self, uri: str) -> bool:
        try:
            self._info(uri)
        except BadImage as error:
            return not isinstance(error.__cause__, FileNotFoundError)
        return True

    def read(self, uri: str) -> bytes:
        return self.stamped(uri)[0]

    def stamped(self, uri: str) -> tuple[bytes, Stamp | None]:
        return self._asked(lambda: self._got(uri))

    def _got(self, uri: str) -> tuple[bytes, Stamp]:
        """One GET: what an object holds, and what its headers tell of it."""
        from fsspec.asyn import sync

        async def get() -> tuple[bytes, Stamp]:
            told = await self._system._call_s3("get_object", **self._named(uri))
            try:
                data = bytes(await told["Body"].read())
            finally:
                told["Body"].close()
            return data, _stamp_of(told | {"size": len(data)})

        return cast("tuple[bytes, Stamp]", sync(self._system.loop, get))

    def _named(self, uri: str) -> dict[str, str]:
        """Bucket and key as they are: s3fs itself would take `?versionId=` out of a key."""
        bucket, _, prefix = self._prefix.partition("/")
        return {"Bucket": bucket, "Key": f"{prefix}/{uri}" if prefix else uri}

    def read_all(self, uris: Sequence[str]) -> Iterator[tuple[str, bytes | BadImage]]:
        with ThreadPoolExecutor(REQUESTS_AT_ONCE, "binsight-s3") as pool:
            try:
                for start in range(0, len(uris), REQUESTS_AHEAD):  # in slices, so that what is not yet taken stays small
                    some = uris[start : start + REQUESTS_AHEAD]
                    yield from zip(some, pool.map(self._tried, some), strict=True)
            finally:
                pool.shutdown(cancel_futures=True)  # when interrupted, no further request

    def size_bytes(self, uri: str) -> int:
        return int(self._info(uri)["size"])

    def _info(self, uri: str) -> Any:  # s3fs is not typed
        told = self._asked(lambda: self._system.call_s3("head_object", **self._named(uri)))
        return told | {"size": told["ContentLength"]}

    def _asked(self, action: Callable[[], T]) -> T:
        """What a request for one file gives. Raises BadImage for a file that cannot be had from a source that answers."""
        try:
            return self._retries.call(action)
        except FileNotFoundError as error:
            raise BadImage(f"cannot be read: no such file in {self.root}") from error
        except PermissionError as error:
            raise BadImage(f"cannot be read: {self.root} does not allow it (a file that is not there looks so, too)") from error
        except Exception as error:
            self._check_reachable()
            raise BadImage(f"cannot be read: {ATTEMPTS} attempts, the last: {_told(error)}") from error

    def _check_reachable(self) -> None:
        """Raise CannotBeDone unless the bucket still answers: then it is one file that fails, and not the way to all."""
        bucket, _, prefix = self._prefix.partition("/")
        try:
            self._system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except PermissionError:
            return  # it may be read but not listed
        except Exception as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> CannotBeDone:
        # s3fs lets the errors of four libraries through: botocore, aiohttp, asyncio, and OSError made of S3's codes.
        wanted = "look at the network, AWS_ENDPOINT_URL, and for a private bucket FSSPEC_S3='{\"anon\": false}'"
        return CannotBeDone(f"cannot read {self.root}: {_told(error)}; {wanted}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"


def _stamp_of(one: Mapping[str, Any]) -> Stamp:
    """The stamp in what s3fs tells of an object."""
    changed = one.get("LastModified")
    mtime_ns = (changed - datetime.fromtimestamp(0, changed.tzinfo)) // timedelta(microseconds=1) * 1000 if changed else 0
    return Stamp(int(one["size"]), mtime_ns, str(one.get("ETag", "")).strip('"'))


def _s3() -> Any:  # s3fs is not typed
    try:
        import s3fs
        from fsspec.config import conf
    except ImportError as error:
        raise MissingExtra("s3fs", extra="s3") from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    given = dict(conf.get("s3", {}))
    config = {
        "max_pool_connections": MOST_CONNECTIONS,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"total_max_attempts": 1},  # `Retries` counts them
    }
    options = {
        "anon": True,
        "endpoint_url": endpoint,
        "use_listings_cache": False,
        "max_concurrency": 1,  # of one file: no request for its size before it is read
        "config_kwargs": config | given.pop("config_kwargs", {}),
    }
    system = s3fs.S3FileSystem(**(options | given))
    system.retries = 1
    return system


def write_atomically(file: Path, data: bytes, *, durable: bool = True) -> None:
    """The file holds all of `data`, or what it held before; the folder must be there.

    durable: also after a power loss. Raises CannotBeDone when the system refuses the write.
    """
    partial = None
    try:
        descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=PARTIAL)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fchmod(opened.fileno(), 0o644)
            if durable:
                os.fsync(opened.fileno())
        Path(partial).replace(file)
        if durable:
            _sync_folder(file.parent)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        raise CannotBeDone(f"cannot write {file}: {error.strerror}") from error


PARTIAL = ".part"  # the end of a file that is being written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """The folder, made when it is not there. Raises CannotBeDone when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotBeDone(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder
