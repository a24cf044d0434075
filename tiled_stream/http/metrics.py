"""Figures for Prometheus: the HTTP names that existing dashboards know, and our own of the stream.

Figures of other rooms are asked for when they are scraped; nothing is counted twice. What must stay true: labels are route
templates, never names of nodes; and a server that lacks something it needs can still be scraped, for that is when it matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from litestar import Request, get
from litestar.response.base import ASGIResponse
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from .._version import __version__
from ..domain.errors import NotFound, Unavailable
from .services import Edge, edge_of

__all__ = ["FIGURES", "ROUTES", "Metrics"]

#: Name → (counter or gauge, what it says). `Services.stats` gives these.
FIGURES: dict[str, tuple[str, str]] = {
    "tiled_stream_subscribers": ("gauge", "Open subscriptions of this process."),
    "tiled_stream_tails": ("gauge", "Nodes that somebody subscribes to in this process."),
    "tiled_stream_records_read_total": ("counter", "Records that tails have read for subscribers."),
    "tiled_stream_messages_sent_total": ("counter", "Messages sent to subscribers."),
    "tiled_stream_bytes_sent_total": ("counter", "Bytes sent to subscribers."),
    "tiled_stream_gaps_total": ("counter", "Gaps announced to subscribers: records that had left the log."),
    "tiled_stream_slow_readers_total": ("counter", "Subscribers let go because they did not read."),
    "tiled_stream_event_loop_lag_seconds": ("gauge", "What the event loop came late at worst, in the last minute."),
    "tiled_stream_backlog_nodes": ("gauge", "Nodes with records that are not persisted yet."),
    "tiled_stream_backlog_records": ("gauge", "Records that are not persisted yet."),
    "tiled_stream_backlog_age_seconds": ("gauge", "Age of the oldest record that is not persisted yet."),
    "tiled_stream_persisted_records_total": ("counter", "Records persisted by this process."),
    "tiled_stream_persist_rounds_total": ("counter", "Rounds of the persister."),
    "tiled_stream_persist_seconds_total": ("counter", "Time spent persisting, in seconds."),
    "tiled_stream_persist_failures_total": ("counter", "Rounds that failed; what they held stays owed."),
    "tiled_stream_quarantined_records_total": ("counter", "Records that could not be applied and were put aside."),
    "tiled_stream_lost_records_total": (
        "counter",
        "Acknowledged records that log, catalog and storage do not have, found by this process.",
    ),
    "tiled_stream_lost_nodes": ("gauge", "Nodes with losses that have not been accepted, in the whole deployment."),
    "tiled_stream_fenced_batches_total": ("counter", "Batches that a store refused because it had seen a newer lease."),
    "tiled_stream_storage_behind_total": ("counter", "Times that a storage had less of a node than the catalog says."),
    "tiled_stream_reapplied_records_total": (
        "counter",
        "Records applied again to a storage that had less than the catalog says.",
    ),
    "tiled_stream_reopened_nodes_total": (
        "counter",
        "Nodes of which catalog or storage had less than the log says was persisted.",
    ),
    "tiled_stream_identity_mismatches_total": ("counter", "Storages that were not those that the catalog knows, at start."),
    "tiled_stream_heals_total": (
        "counter",
        "Rounds in which the servers restored a Redis that lost records, seen by this process.",
    ),
    "tiled_stream_healed_records_total": ("counter", "Records that this process has restored in Redis."),
    "tiled_stream_heal_lost_records_total": ("counter", "Records that no running server could restore in Redis."),
    "tiled_stream_kept_bytes": ("gauge", "Bytes of records that this process keeps until they are persisted."),
    "tiled_stream_unkept_records_total": ("counter", "Records not kept any more because of cache_keep_bytes."),
    "tiled_stream_webhook_deliveries_total": ("counter", "Messages of webhooks that receivers took, of this process."),
    "tiled_stream_webhook_failures_total": (
        "counter",
        "Attempts to deliver a message of a webhook that failed, of this process.",
    ),
    "tiled_stream_webhook_given_up_total": ("counter", "Messages of webhooks that will not be tried again, of this process."),
    "tiled_stream_webhook_pending": ("gauge", "Messages of webhooks that wait to be delivered, in the whole deployment."),
    "tiled_stream_webhook_lag_seconds": ("gauge", "Age of the oldest event that waits to be delivered to a webhook."),
    "tiled_stream_log_bytes": ("gauge", "Bytes of the records that the log holds."),
    "tiled_stream_redis_used_memory_bytes": ("gauge", "Bytes of memory that Redis uses."),
    "tiled_stream_redis_max_memory_bytes": ("gauge", "Bytes of memory that Redis may use; 0: no limit."),
    "tiled_stream_redis_errors_total": ("counter", "Questions and appends that Redis did not answer, of this process."),
    "tiled_stream_redis_claims_total": (
        "counter",
        "Bodies put into files because they are too large for Redis, by this process.",
    ),
    "tiled_stream_redis_claimed_bytes_total": ("counter", "Bytes of these bodies."),
}

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BYTES = tuple(float(10**n) for n in range(2, 10))


class Metrics:
    """One registry a server, so that several in one process do not mix."""

    def __init__(self, edge: Edge) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "tiled_request_duration_seconds",
            "Time from request to response, in seconds.",
            ["method", "code", "endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._sizes = Histogram(
            "tiled_response_content_length_bytes",
            "Size of response bodies, in bytes.",
            ["method", "code", "endpoint"],
            buckets=_BYTES,
            registry=self.registry,
        )
        lag = Histogram(
            "tiled_stream_delivery_lag_seconds",
            "Time from a write to its being ready for delivery in this process, in seconds.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        edge.hub.observe(lag.observe)
        append = Histogram(
            "tiled_stream_append_duration_seconds",
            "Time that an append to the log takes, in seconds.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        edge.writer.observe(append.observe)
        build = Gauge(
            "tiled_stream_build_info", "Always 1; the label says which version runs.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)
        self.ready = Gauge(
            "tiled_stream_ready", "1 while this server should get traffic, as /readyz says; else 0.", registry=self.registry
        )
        # Label look-ups cost more than observing: the few combinations are remembered.
        self._known: dict[tuple[str, int, str], tuple[Any, Any]] = {}

    def request(self, method: str, code: int, endpoint: str, seconds: float, size: int) -> None:
        """Count one response."""
        place = (method, code, endpoint)
        known = self._known.get(place)
        if known is None:
            labels = (method, str(code), endpoint)
            known = self._known[place] = (self._requests.labels(*labels), self._sizes.labels(*labels))
        known[0].observe(seconds)
        known[1].observe(size)


class _Asked:
    """A collector of figures that were just asked for."""

    def __init__(self, figures: dict[str, float]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, (kind, text) in FIGURES.items():
            if name in self._figures:
                family: Metric
                if kind == "gauge":
                    family = GaugeMetricFamily(name, text, value=self._figures[name])
                else:
                    family = CounterMetricFamily(name, text, value=self._figures[name])
                yield family


@get("/metrics", opt={"scopes": ("metrics",)})
async def get_metrics(request: Request[Any, Any, Any]) -> ASGIResponse:
    """All figures, in the text format of Prometheus."""
    edge = edge_of(request)
    metrics: Metrics | None = request.app.state["metrics"]
    if metrics is None:
        raise NotFound("Metrics are switched off.")
    figures, is_ready = await asyncio.gather(_figures(edge), _is_ready(edge))
    metrics.ready.set(is_ready)
    asked = CollectorRegistry()
    asked.register(_Asked(figures))
    body = generate_latest(metrics.registry) + generate_latest(asked)
    return ASGIResponse(body=body, media_type="text/plain; version=0.0.4")


async def _figures(edge: Edge) -> dict[str, float]:
    """Nothing if they cannot be asked for now: that the server is not ready is then said by its own figure."""
    try:
        return await edge.services.stats()
    except Unavailable:
        return {}


async def _is_ready(edge: Edge) -> bool:
    try:
        await edge.services.ready()
    except Unavailable:
        return False
    return True


ROUTES = [get_metrics]
