"""What ``GET /metrics`` tells Prometheus."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from fllm_export.server.batcher import REASONS, Reason

if TYPE_CHECKING:
    from fllm_export.runtime.topk import TopK

STAGES = ("tokenise", "encode", "queue", "scan", "total")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_COVERAGE = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class Metrics:
    """Counters, histograms with fixed buckets, and gauges that are read when they are asked for."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        own = self._registry
        self._requests = Counter("fllm_requests", "Requests to /v1/topk by status.", ["status"], registry=own)
        self._errors = Counter("fllm_errors", "Requests to /v1/topk that failed.", registry=own)
        stages = Histogram(
            "fllm_stage_seconds", "Wall time of the stages of an answer.", ["stage"], buckets=_SECONDS, registry=own
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._items = Counter("fllm_items", "Items answered.", registry=own)
        self._incomplete = Counter("fllm_incomplete_items", "Items whose budget ended before the table.", registry=own)
        self._coverage = Histogram(
            "fllm_coverage", "Rows scored / rows of the table, per item.", buckets=_COVERAGE, registry=own
        )
        self._batch_items = Histogram(
            "fllm_batch_items", "Items per pass over the table.", buckets=_ITEMS, registry=own
        )
        passes = Counter("fllm_passes", "Passes over the table by the reason why they began.", ["reason"], registry=own)
        self._passes = {reason: passes.labels(reason) for reason in REASONS}
        self._dropped = Counter(
            "fllm_dropped_requests", "Requests whose client went or whose time was over.", registry=own
        )
        self._reloads = Counter("fllm_reloads", "Reloads that succeeded.", registry=own)
        self._failed_reloads = Counter("fllm_failed_reloads", "Reloads that failed.", registry=own)
        self._by_status: dict[int, Counter] = {}
        self.gauge("fllm_resident_bytes", "Resident memory of the process.", resident_bytes)

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when metrics are asked for."""
        Gauge(name, help, registry=self._registry).set_function(read)

    def count_request(self, status: int) -> None:
        """Count an answered request."""
        if status not in self._by_status:
            self._by_status[status] = self._requests.labels(str(status))
        self._by_status[status].inc()
        if status >= 400:
            self._errors.inc()

    def count_pass(self, reason: Reason, items: int, dropped: int) -> None:
        """Count a pass that begins."""
        self._passes[reason].inc()
        self._batch_items.observe(items)
        if dropped:
            self._dropped.inc(dropped)

    def count_answer(self, answer: TopK, timings_ms: dict[str, float], total_ms: float) -> None:
        """Count the items of an answer and what its stages took."""
        for stage, found in self._stages.items():
            if stage in timings_ms:
                found.observe(timings_ms[stage] / 1e3)
        self._stages["total"].observe(total_ms / 1e3)
        self._items.inc(len(answer.user_ids))
        for coverage, complete in zip(answer.coverage.tolist(), answer.complete.tolist(), strict=True):
            self._coverage.observe(coverage)
            if not complete:
                self._incomplete.inc()

    def count_reload(self, succeeded: bool) -> None:
        """Count an attempt to move to another bundle, table or generation."""
        (self._reloads if succeeded else self._failed_reloads).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


def resident_bytes() -> float:
    """Return the bytes of this process that are in memory, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())
