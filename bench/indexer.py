"""Batch jobs end to end: `python -m bench.indexer --bins 1000 --rounds 3`; without --bins, all of ABID's that are here.

The bins with their records go through the indexer into each sink: a local store, a Redis 8 that syncs every write, shards. Then
their photos from a bucket (moto's server, in a process of its own) against the same from a folder. A job's time runs from the
first file opened to the last durable commit; each round runs every job once, in turn. The S3 server takes its 3 to 4 ms a photo
from the same cores, so the CPU time of the jobs themselves is compared, too.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import boto3
from indexer.display import Display
from indexer.job import Job, JobReport, run_job
from rich.console import Console
from tests.redis_server import free_port, redis_server

from bench.report import Figure, tell
from binsight.rates import StageRate
from binsight.settings import Settings

BUCKET = "bins"
KEYS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}


def some_bins(source: Path, folder: Path, bins: int | None) -> Path:
    """A folder with that many of a source's bins, evenly taken."""
    photos = sorted((source / "bin-images").glob("*.jpg"))
    step = max(1, len(photos) // bins) if bins else 1
    for photo in photos[::step][:bins]:
        for part in (f"bin-images/{photo.name}", f"metadata/{photo.stem}.json"):
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / part, folder / part)
    return folder


@contextmanager
def bucket_of(folder: Path) -> Iterator[str]:
    """A bucket that holds a folder's files, served by a process of its own; S3 requests of this process go to it."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address)
            client = boto3.client("s3", endpoint_url=address, **KEYS)
            client.create_bucket(Bucket=BUCKET, ACL="public-read")
            for path in sorted(folder.rglob("*.*")):
                name = path.relative_to(folder).as_posix()
                client.put_object(Bucket=BUCKET, Key=name, Body=path.read_bytes(), ACL="public-read")
            client.close()
            os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
            yield f"s3://{BUCKET}"
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urlopen(address).close()  # noqa: S310, our own server
            return
        except URLError:
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Ran:
    """A job that ran, and the CPU time that this process took for it."""

    report: JobReport
    cpu_s: float

    @property
    def images_per_s(self) -> float:
        return self.report.ingested.images_per_s

    @property
    def slowest(self) -> StageRate:
        return max(self.report.ingested.stages, key=lambda one: one.busy_s / one.threads)


def run(source: str, sink: str, model: str) -> Ran:
    display = Display(Console(file=io.StringIO()))
    began = time.process_time()
    return Ran(run_job(Job((source,), sink, model), Settings.read(), display), time.process_time() - began)


def figures_of(name: str, ran: list[Ran]) -> list[Figure]:
    """The rate of a job, and how near it comes to the rate of its slowest stage while that is busy."""
    told = ", ".join(f"{one.stage} {one.per_s:,.0f}/s" for one in ran[-1].report.ingested.stages)
    near = [one.images_per_s / one.slowest.per_s for one in ran]
    return [
        Figure.median(f"{name}, bottleneck {ran[-1].slowest.stage}", [one.images_per_s for one in ran], "images/s"),
        Figure.median(f"  end to end / its slowest stage while busy ({told})", near, "x", ">= 0.90"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("BINSIGHT_DATA") or root.parent / "shared" / "data")
    parser.add_argument("--model", default=str(root / "models/bins-mobilenetv2"))
    parser.add_argument("--source", type=Path, default=data / "abid")
    parser.add_argument("--bins", type=int, help="how many; by default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as name, redis_server(Path(name) / "redis") as server:
        folder = Path(name)
        bins = some_bins(options.source, folder / "bins", options.bins)
        with bucket_of(bins) as bucket:
            jobs = {
                "into a local store": (f"abid:{bins}", folder / "local.store"),
                "into Redis": (f"abid:{bins}", server.url()),
                "into shards": (f"abid:{bins}", f"shards:{folder / 'shards'}"),
                "photos alone, from a folder": (f"{bins}/bin-images", folder / "photos.store"),
                "photos alone, from a bucket": (f"{bucket}/bin-images", folder / "bucket.store"),
            }
            few = some_bins(options.source, folder / "few", 200)
            run(f"abid:{few}", "exact:", options.model)  # the model's files are in memory, its batches compiled
            reports: dict[str, list[Ran]] = {job: [] for job in jobs}
            for _ in range(options.rounds):
                for job, (source, sink) in jobs.items():
                    for old in ("local.store", "photos.store", "bucket.store", "shards"):
                        shutil.rmtree(folder / old, ignore_errors=True)
                    server.client().flushall()
                    reports[job].append(run(source, str(sink), options.model))
    figures = [figure for job in jobs for figure in figures_of(job, reports[job])]
    pairs = list(zip(reports["photos alone, from a bucket"], reports["photos alone, from a folder"], strict=True))
    ratios = [one.images_per_s / other.images_per_s for one, other in pairs]
    figures.append(Figure.median("bucket / folder, images/s", ratios, "x", ">= 0.8"))
    figures.append(Figure.median("folder / bucket, CPU time of the job", [b.cpu_s / a.cpu_s for a, b in pairs], "x"))
    items, cores = reports["into shards"][-1].report.items, len(os.sched_getaffinity(0))
    tell("indexer", figures, as_json=options.json, bins=items, model=Path(options.model).name, cores=cores)


if __name__ == "__main__":
    main()
