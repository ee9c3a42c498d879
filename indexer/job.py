"""One batch job: its description, its run, its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from binsight.data.part import WHOLE, Part
from binsight.errors import BadSettings
from binsight.ingest import IngestReport, ingest, list_sources
from binsight.patience import Patience
from binsight.records import Metadata
from binsight.settings import Settings
from binsight.store import shown_url
from indexer.display import Display
from indexer.sinks import Sink, is_shards, open_sink

COUNT_FIELD = "count"


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    sources: as `list_sources` takes them. sink: a store's URL, or shards:FOLDER. model: by default, the one that filled it.
    part: which pictures are this job's. count_field: where the model's count is stored; None takes COUNT_FIELD when the model
    counts, empty stores none. wait_s: how long a store that goes away, or takes no writes, is waited for.
    shard_items: of each finished shard.
    """

    sources: tuple[str, ...]
    sink: str
    model: str | None = None
    metadata: Path | None = None
    root: Path | None = None
    id_prefix: str = ""
    prune: bool = False
    part: Part = WHOLE
    count_field: str | None = None
    wait_s: float = 60.0
    shard_items: int = 4096

    def __post_init__(self) -> None:
        if not 0 <= self.wait_s <= 86_400:
            raise BadSettings(f"want to wait from 0 to 86400 seconds for a store, got {self.wait_s}")
        if self.prune and is_shards(self.sink):
            raise BadSettings("shards are only added to; load them into a store and prune there")
        if not 1 <= self.shard_items <= 1_000_000:
            raise BadSettings(f"want shards of 1 to 1,000,000 items, got {self.shard_items}")


@dataclass(frozen=True, slots=True)
class JobReport:
    """What was done, and into what. items: that the sink holds now, of all jobs."""

    job: Job
    ingested: IngestReport
    count_field: str
    items: int
    model: str
    fingerprint: str

    def to_json(self) -> Metadata:
        return self.ingested.to_json() | {
            "part": str(self.job.part),
            "store": shown_url(self.job.sink),
            "items": self.items,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "count_field": self.count_field or None,
        }


def run_job(job: Job, settings: Settings, display: Display) -> JobReport:
    """Do it: list the sources, open the sink and the model, bring the sink up to date. Raises what these raise."""
    started = perf_counter()
    listings = list_sources(job.sources, metadata=job.metadata, root=job.root, id_prefix=job.id_prefix, part=job.part)
    listed = sum(len(listing.pictures) for listing in listings)
    display.rates.add("list", listed, perf_counter() - started)
    started, patience = perf_counter(), Patience(job.wait_s)
    with open_sink(job.sink, job.model, settings, part=job.part, shard_items=job.shard_items) as sink:
        load_s = perf_counter() - started
        count_field = _count_field(job, sink)
        held = patience.call(lambda: len(sink.store))
        display.tell(f"{listed:,} pictures listed, part {job.part}; the store holds {held:,} items")
        with display:
            report = ingest(
                listings,
                sink.encoder,
                sink.store,
                prune=job.prune,
                part=job.part,
                count_field=count_field,
                batch_size=settings.batch_size,
                workers=settings.workers,
                patience_s=job.wait_s,
                rates=display.rates,
                progress=display.progress,
            )
        started = perf_counter()
        with display.rates.timing("write", 0):
            sink.finish()
        took_s, stages = report.took_s + perf_counter() - started, display.rates.stages()
        info, held = sink.encoder.info, patience.call(lambda: len(sink.store))
        waited_s = report.waited_s + patience.waited_s
        report = replace(report, load_s=load_s, took_s=took_s, waited_s=waited_s, stages=stages)
        return JobReport(job, report, count_field, held, info.model, info.fingerprint)


def _count_field(job: Job, sink: Sink) -> str:
    if job.count_field is not None:
        return job.count_field
    return COUNT_FIELD if sink.encoder.heads.count is not None else ""
