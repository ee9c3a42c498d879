"""What Prometheus is told. Each server has its own registry, so that two in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Stage: TypeAlias = Literal["decode", "model", "search", "write"]
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}


@final
class Metrics:
    """Counters and histograms of one server. Route labels are templates, so that ids make no new series."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "binsight_requests",
            "Requests by route template and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._request_s = Histogram(
            "binsight_request_seconds",
            "From a request's headers to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stage_s = Histogram(
            "binsight_stage_seconds",
            "Work of each stage, without waiting.",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "binsight_batch_pictures",
            "Pictures that passed the model together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self._registry,
        )
        self._depth = Gauge(
            "binsight_queue_depth", "How many there are: held, or waiting for a stage.", ("queue",), registry=self._registry
        )
        self._ready = Gauge("binsight_ready", "1 when /readyz would say so.", registry=self._registry)

    def watch(self, queue: str, depth: Callable[[], int]) -> None:
        """Ask for the depth of a queue whenever the metrics are read."""
        self._depth.labels(queue).set_function(depth)

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        self._ready.set_function(is_ready)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def stage(self, stage: Stage, seconds: float) -> None:
        self._stage_s.labels(stage).observe(seconds)

    def model_pass(self, pictures: int, seconds: float) -> None:
        self._batch.observe(pictures)
        self.stage("model", seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
