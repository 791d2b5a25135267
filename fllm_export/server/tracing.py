"""Spans for OpenTelemetry, made after a request from the times of its stages, where tracing is requested."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fllm_export.errors import HardwareError

if TYPE_CHECKING:
    from fllm_export.runtime.topk import TopK


class Timeline:
    """When each stage of a request ended."""

    def __init__(self) -> None:
        # Stages are timed by the clock that does not jump; spans need the time of day of their beginning.
        self.began_ns = time.time_ns()
        self._began = time.monotonic()
        self.marks: list[tuple[str, int]] = []

    def mark(self, stage: str, at: float | None = None) -> None:
        """Note the end of a stage, now or at a time of :func:`time.monotonic` in seconds."""
        passed = (time.monotonic() if at is None else at) - self._began
        self.marks.append((stage, self.began_ns + int(passed * 1e9)))


class Tracing:
    """Where spans go.

    Args:
        provider: a ``TracerProvider`` of the OpenTelemetry SDK.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("fllm_export.server")

    @classmethod
    def by_environment(cls) -> Tracing:
        """Send spans by OTLP over HTTP, to the place that the ``OTEL_*`` variables name.

        Raises:
            HardwareError: the packages of the extra ``telemetry`` are not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise HardwareError(
                f"tracing needs the package `{error.name}`, which is not installed",
                fix="Run pip install 'fllm-export[telemetry]'",
            ) from error
        provider = TracerProvider(resource=Resource.create({"service.name": "fllm-export"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def record(self, timeline: Timeline, headers: Mapping[str, str], items: int, k: int, answer: TopK) -> None:
        """Record a request as one span with a child per stage; the header ``traceparent`` names its parent."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        facts = {
            "fllm.items": items,
            "fllm.k": k,
            "fllm.generation": answer.generation,
            "fllm.complete": bool(answer.complete.all()),
        }
        whole = self._tracer.start_span(
            "POST /v1/topk",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=facts,
            start_time=timeline.began_ns,
        )
        inside, begins = set_span_in_context(whole), timeline.began_ns
        for stage, ends in timeline.marks:
            self._tracer.start_span(stage, context=inside, start_time=begins).end(end_time=ends)
            begins = ends
        whole.end(end_time=begins)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
