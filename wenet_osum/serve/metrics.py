"""What ``/metrics`` tells Prometheus: requests over HTTP, and the engine's own counts."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from wenet_osum.serve.service import Service
from wenet_osum.serve.stats import BOUNDS
from wenet_osum.serve.stats import Histogram as Counts


class Metrics:
    """Counters of one app, in a registry of its own.

    Attributes:
        in_flight: requests over HTTP that have no end yet.
    """

    def __init__(self, service: Service):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "osum_http_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "osum_http_request_seconds",
            "From a request's header to the end of its answer.",
            ["route"],
            registry=self.registry,
            buckets=BOUNDS,
        )
        self.in_flight = Gauge(
            "osum_http_requests_in_flight", "Requests without an end.", registry=self.registry
        )
        self.registry.register(_Engine(service))
        ProcessCollector(registry=self.registry)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        # A route's pattern and a known method: what a client invents makes no time series.
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Engine(Collector):
    """``Service.stats`` as it is when Prometheus asks."""

    def __init__(self, service: Service):
        self.service = service

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        stats = self.service.stats
        yield GaugeMetricFamily("osum_ready", "1: the model answers.", float(self.service.ready))
        yield GaugeMetricFamily(
            "osum_open_requests", "Recordings that wait or are being answered.", stats.open
        )
        yield GaugeMetricFamily("osum_queue_pieces", "Pieces that wait for the model.", stats.queue)
        yield GaugeMetricFamily("osum_in_hand_pieces", "Pieces that the model is answering.", stats.in_hand)
        answered = CounterMetricFamily("osum_requests", "Recordings by how they ended.", labels=["outcome"])
        for outcome, count in sorted(stats.requests.items()):
            answered.add_metric([outcome], count)
        yield answered
        yield CounterMetricFamily("osum_audio_seconds", "Seconds of audio answered.", stats.audio_seconds)
        yield CounterMetricFamily(
            "osum_worker_restarts", "Starts of the model's process anew.", stats.restarts
        )
        yield CounterMetricFamily("osum_decoder_losses", "Audio decoders that died.", stats.decoder_losses)
        batches = CounterMetricFamily("osum_batches", "Batches by their size.", labels=["size"])
        for size, count in sorted(stats.batches.items()):
            batches.add_metric([str(size)], count)
        yield batches
        yield _histogram("osum_answer_seconds", "From a recording's arrival to its answer.", stats.latency)
        yield _histogram("osum_batch_seconds", "The model's time for a batch.", stats.batch_latency)


def _histogram(name: str, what: str, counts: Counts) -> HistogramMetricFamily:
    """Prometheus counts in each bucket those of all below."""
    below, buckets = 0, []
    for bound, count in zip([*map(str, counts.bounds), "+Inf"], counts.counts):
        below += count
        buckets.append((bound, float(below)))
    found = HistogramMetricFamily(name, what)
    found.add_metric([], buckets, counts.total)
    return found
