"""Spans over OTLP, where a setting names a collector: one trace for each event, from its acceptance to its attempts.

The trace's id is the event's own, 16 bytes of which the last 4 are chance, and the first span's is the last 8 of them:
so nothing has to be stored or carried from process to process. What the HMS sent as ``traceparent`` is a link.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, Tracer, get_current_span
from opentelemetry.trace import set_span_in_context as within
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from webhook_gateway.settings import Settings

_tracer: Tracer | None = None
_below = 0.0
"""Events are traced whose chance is below it, as a part of all that there are: the same ones in every process."""
_ids: list[int] = []
"""Of the span that is just being made, the span's and then the trace's."""
_HALF, _CHANCE = 2**64 - 1, 2**32 - 1


def start(settings: Settings, part: str) -> None:
    """Spans of this process go to the collector from now on, if there is one; ``part`` is ``api`` or ``worker``."""
    global _tracer, _below
    if settings.otlp_endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    class Ids(IdGenerator):
        def generate_span_id(self) -> int:
            return _ids.pop() if _ids else secrets.randbits(63) + 1

        def generate_trace_id(self) -> int:
            return _ids.pop()

    resource = Resource({"service.namespace": "webhook-gateway", "service.name": f"webhook-gateway-{part}"})
    provider = TracerProvider(ALWAYS_ON, resource, id_generator=Ids())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")))
    _tracer, _below = provider.get_tracer("webhook_gateway"), settings.otlp_ratio


def traces(event_id: UUID) -> bool:
    return _tracer is not None and (event_id.int & _CHANCE) / _CHANCE < _below


def accepted(event_id: UUID, seconds: float, traceparent: bytes | None, **attributes: str) -> None:
    """The first span of an event's trace."""
    if traces(event_id):
        known = TraceContextTextMapPropagator().extract({"traceparent": (traceparent or b"").decode("latin-1")})
        caller = get_current_span(known).get_span_context()
        _ids[:] = event_id.int & _HALF, event_id.int
        _write("accept", Context(), SpanKind.SERVER, seconds, attributes, [Link(caller)] if caller.is_valid else [])


def followed(name: str, event_id: UUID, seconds: float, **attributes: str | int | None) -> None:
    """A later span, which has just ended: ``fan out``, ``claim`` or ``attempt``."""
    if traces(event_id):
        first = SpanContext(event_id.int, event_id.int & _HALF, is_remote=True, trace_flags=TraceFlags(1))
        kind = SpanKind.CLIENT if name == "attempt" else SpanKind.INTERNAL
        _write(name, within(NonRecordingSpan(first), Context()), kind, seconds, attributes)


def _write(
    name: str, context: Context, kind: SpanKind, seconds: float, about: Mapping[str, Any], links: Sequence[Link] = ()
) -> None:
    assert _tracer is not None
    ended = time_ns()
    told = {f"webhook_gateway.{key}": value for key, value in about.items() if value is not None}
    span = _tracer.start_span(name, context, kind, told, links, start_time=ended - int(seconds * 1e9))
    span.end(ended)
