"""Files of a folder and of a bucket: requests are unsigned unless asked otherwise, writes are whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fsspec.config import conf

from binsight.data.files import LocalFiles, open_files, write_atomically
from binsight.errors import BadSource, CannotBeDone
from tests.bins import photo, write
from tests.s3_server import BUCKET, lead_to, s3_bucket

EMPTY = b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>'


class Listener(ThreadingHTTPServer):
    """Says of every bucket that it is empty, and keeps the requests' Authorization."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seen: list[str | None] = []


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Listener)
        self.server.seen.append(self.headers.get("Authorization"))
        self.send_response(200)
        self.send_header("Content-Length", str(len(EMPTY)))
        self.end_headers()
        self.wfile.write(EMPTY)

    do_HEAD = do_GET  # noqa: N815, the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with Listener() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        lead_to(f"http://127.0.0.1:{server.server_address[1]}", monkeypatch)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield server
        server.shutdown()


def test_requests_are_unsigned_though_there_are_credentials(listener: Listener) -> None:
    assert open_files(f"s3://{BUCKET}").names("bin-images") is None
    assert listener.seen
    assert set(listener.seen) == {None}


def test_a_private_bucket_is_read_signed_when_fsspec_is_told_so(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(conf, "s3", {"anon": False})  # what FSSPEC_S3='{"anon": false}' does when a process starts
    assert open_files(f"s3://{BUCKET}").names("bin-images") is None
    assert all(seen is not None and "Credential=somebody/" in seen for seen in listener.seen)


def test_a_bucket_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_bucket({}) as address:
        lead_to(address, monkeypatch)
        files = open_files("s3://no-such-bucket/x")
        assert files.names("bin-images") is None
        with pytest.raises((BadSource, CannotBeDone), match="s3://no-such-bucket/x"):
            files.pictures()


def test_names_are_those_of_files_directly_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"a/2.jpg": b"2", "a/1 [x]*?.jpg": b"1", "a/deep/3.jpg": b"3", "b.jpg": b"b"}
    with s3_bucket({f"set/{name}": data for name, data in tree.items()}) as address:
        lead_to(address, monkeypatch)
        for files in (open_files(str(write(tmp_path, tree))), open_files(f"s3://{BUCKET}/set")):
            assert files.names("a") == ["1 [x]*?.jpg", "2.jpg"]
            assert files.names("none") is None
            assert files.pictures() == ["a/1 [x]*?.jpg", "a/2.jpg", "a/deep/3.jpg", "b.jpg"]
            assert dict(files.read_all(["a/1 [x]*?.jpg", "a/deep/3.jpg"])) == {"a/1 [x]*?.jpg": b"1", "a/deep/3.jpg": b"3"}
            assert files.size_bytes("a/2.jpg") == 1


def test_without_s3fs_the_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from binsight.data.files import open_files\n"
        "from binsight.errors import MissingExtra\n"
        "try: open_files('s3://b')\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "s3fs is not installed; run: pip install 'binsight[s3]'\n"


def test_a_folder_is_opened_without_s3fs(tmp_path: Path) -> None:
    program = (
        "import sys; from binsight.data.labelled import open_labelled; open_labelled(sys.argv[1])\n"
        "print(sorted({'s3fs', 'fsspec', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    folder = write(tmp_path, {"1/a.jpg": photo()})
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "old.csv").mkdir()
    with pytest.raises(CannotBeDone, match=r"cannot write .*/old.csv: Is a directory"):
        write_atomically(tmp_path / "old.csv", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]


def test_a_file_is_written_over_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"old")
    write_atomically(tmp_path / "s.csv", b"new")
    assert (tmp_path / "s.csv").read_bytes() == b"new"
    assert (tmp_path / "s.csv").stat().st_mode & 0o777 == 0o644
    assert LocalFiles(tmp_path).read("s.csv") == b"new"
