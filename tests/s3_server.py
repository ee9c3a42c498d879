"""A real S3 server on this machine (moto's), holding one public bucket, and the environment that leads to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer

from binsight.data import retries

BUCKET = "aft-vbi-pds"


@contextmanager
def s3_bucket(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serves the files by their keys while the block runs, and gives the server's address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    try:
        urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()  # noqa: S310, our own server; buckets are the process's
        client = boto3.client("s3", endpoint_url=address, **keys)
        client.create_bucket(Bucket=BUCKET, ACL="public-read")
        for key, data in files.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="public-read")
        client.close()
        yield address
    finally:
        server.stop()


def lead_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point S3 requests of this process at the server, with no credentials at hand."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point S3 requests at a port where nobody listens, and do not try long."""
    lead_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
