"""`binsight index s3://…`: the same command, another source."""

from __future__ import annotations

import json

import pytest

from binsight.cli import run
from binsight.store import open_store
from tests import bins
from tests.s3_server import BUCKET, lead_nowhere, lead_to, s3_bucket

MODEL = "binsight:colour-layout"


def test_objects_of_a_bucket_are_indexed_and_found_unchanged(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"hall/ram/a.jpg": bins.photo((200, 0, 0)), "hall/b.jpg": bins.photo((0, 200, 0)), "hall/bad.jpg": b"no picture"}
    with s3_bucket(files) as address:
        lead_to(address, monkeypatch)
        command = ["index", f"s3://{BUCKET}/hall", "--store", f"{tmp_path}/s.store", "--model", MODEL, "--json"]
        assert run(command) == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["indexed"], [one["path"] for one in report["refused"]]) == (2, [f"s3://{BUCKET}/hall/bad.jpg"])
        assert run([*command, "--prune"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["indexed"], report["unchanged"], report["pruned"]) == (0, 2, 0)
    with open_store(f"{tmp_path}/s.store", read_only=True) as store:
        assert {item.id for item in store.scan()} == {"ram/a.jpg", "b.jpg"}


def test_a_bucket_out_of_reach_ends_with_3(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lead_nowhere(monkeypatch)
    assert run(["index", "s3://bins/x", "--store", f"{tmp_path}/s.store", "--model", MODEL]) == 3
    assert "cannot read s3://bins/x" in capsys.readouterr().err
