"""Traces, where OTEL_EXPORTER_OTLP_ENDPOINT says where to: from a request to the tasks that it sends, and on.

Imported only then, before the fork, so that no new process spends its first second on it; started after the
fork, because its thread would not survive that.
"""

import os
from collections.abc import Sequence
from typing import Any

from celery.signals import beat_init, worker_process_init, worker_process_shutdown, worker_ready
from django.conf import settings
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor, utils
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from reliability.application import Celery

PATIENCE = 1000  # milliseconds that the end of a process waits for what it has still to send
# Texts of exceptions: they repeat arguments, rows and what servers said. Their types stay.
TEXTS = {"exception.message", "exception.stacktrace", "celery.retry.reason"}
URLS = {"http.target", "http.url"}  # whose queries hold tokens, and what people search for


class Exporter(OTLPSpanExporter):
    """Sends spans without the texts of exceptions and the queries of URLs, and no database's alone."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Return whether the collector has them. /readyz asks the database, and belongs to no trace."""
        found = [
            _without_texts(span)
            for span in spans
            if span.parent or "db.system" not in (span.attributes or {})
        ]
        return super().export(found) if found else SpanExportResult.SUCCESS


class Processor(BatchSpanProcessor):
    """Sends spans from a thread of its own, every five seconds."""

    def shutdown(self) -> None:
        """Send what is left, but wait for a collector that does not answer no longer than PATIENCE."""
        self._batch_processor.shutdown(timeout_millis=PATIENCE)


def _without_texts(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_no_texts(span.attributes),
        events=[Event(event.name, _no_texts(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=trace.Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _no_texts(attributes: Any) -> dict[str, Any]:
    return {
        name: value.partition("?")[0] if name in URLS else value
        for name, value in (attributes or {}).items()
        if name not in TEXTS
    }


def start(role: str) -> None:
    """Trace this process from now on, by the name of its role unless OTEL_SERVICE_NAME gives another."""
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    name = os.environ.get("OTEL_SERVICE_NAME") or role
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(Processor(Exporter()))
    trace.set_tracer_provider(provider)
    PsycopgInstrumentor().instrument()
    CeleryInstrumentor().instrument()
    if role == "web":  # behind the probes and the figures, in front of all else
        place = settings.MIDDLEWARE.index("django.middleware.security.SecurityMiddleware")
        DjangoInstrumentor().instrument(middleware_position=place)


def stop(**_: Any) -> None:
    """Send what is left. A pool process ends without atexit, where the others do it by themselves."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def end_what_was_not_sent(app: Celery) -> None:
    """End the span of a task that the broker does not take.

    CeleryInstrumentor leaves it open, and all that the thread does later, for whatever request, inside of it.
    """
    send = app.send_now

    def send_now(name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        try:
            return send(name, args, kwargs, options)
        except BaseException as error:
            task, task_id = app.tasks.get(name), options["task_id"]
            if open_span := utils.retrieve_context(task, task_id, is_publish=True):
                utils.detach_context(task, task_id, is_publish=True)
                open_span[1].__exit__(type(error), error, error.__traceback__)
            raise

    this_one: Any = app
    this_one.send_now = send_now


def begin_in_a_pool_process(**_: Any) -> None:
    """Begin in each process of the prefork pool, and in that of the solo pool."""
    start("worker")


def begin_with_threads(sender: Any, **_: Any) -> None:
    """Begin in the process of the threads pool, which sends no signal of its own."""
    if "thread" in type(sender.pool).__module__:
        start("worker")


def begin_in_beat(**_: Any) -> None:
    """Begin before the first tick."""
    start("beat")


def connect(app: Celery) -> None:
    """Begin with each process of Celery; web begins in config/wsgi.py."""
    end_what_was_not_sent(app)
    worker_process_init.connect(begin_in_a_pool_process)
    worker_process_shutdown.connect(stop)
    worker_ready.connect(begin_with_threads)
    beat_init.connect(begin_in_beat)


def add_trace_id(_logger: Any, _name: str, event: Any) -> Any:
    """Add to a line of the log which trace it belongs to."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
