"""One trace from request to task by OTEL_EXPORTER_OTLP_ENDPOINT alone, and nobody waits for the collector."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from django.conf import settings
from django.test import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from accounts.models import User
from dev import BASE_DIR
from dev.processes import free_port
from jobs.tasks import write_report
from tests import tasks
from tests.brokers import absent_broker
from tests.harness import StartWorker, database_url, eventually
from tests.receivers import Receiver
from tests.web import Web

SECRET = "hunter2-in-clear"
LATER = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}  # milliseconds: what arrives was sent by the end of a process


class Span(NamedTuple):
    """What a collector is told of a piece of work."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    failed: bool


class Collector(Receiver):
    """A collector that only listens."""

    @property
    def url(self) -> str:
        """What leads here."""
        return f"http://{self.host}"

    def spans(self) -> list[Span]:
        """Return what came."""
        found = []
        for body in self.bodies:
            for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {each.key: each.value.string_value for each in of_process.resource.attributes}
                service = names["service.name"]
                for scope in of_process.scope_spans:
                    for span in scope.spans:
                        ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                        found.append(Span(service, span.name, *ids, failed=span.status.code == 2))
        return found

    def wait_for(self, name: str, parent: Span | None = None) -> list[Span]:
        """Return the spans of this name, inside of `parent` if that is given, once there is one."""

        def found() -> list[Span]:
            return [
                span
                for span in self.spans()
                if span.name == name and (parent is None or span.parent == parent.id)
            ]

        spans: list[Span] = eventually(found, f"the span {name}")
        return spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A real receiver."""
    with Collector() as server:
        yield server


def ask_for_a_report(web: Web) -> None:
    """Add one in the admin, as a browser does."""
    visitor = Client()
    visitor.force_login(User.objects.create_superuser("somebody"))
    token = "a" * 32
    cookie = f"sessionid={visitor.cookies['sessionid'].value}; csrftoken={token}"
    form = {"title": "Ants", "seconds": 0.1, "csrfmiddlewaretoken": token}
    headers = {"Host": "testserver", "Cookie": cookie}
    with urlopen(Request(f"{web.url}/admin/jobs/report/add/", urlencode(form).encode(), headers)) as answer:
        assert answer.url == f"{web.url}/admin/jobs/report/"


@pytest.mark.promise("retries")
def test_one_trace_leads_from_a_request_to_its_tasks(
    start_web: Callable[..., Web],
    start_worker: StartWorker,
    collector: Collector,
) -> None:
    """Through the commit, a task that the task sends, and the retry of that."""
    web = start_web(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    options = ("--include", "tests.tasks,tests.sending_on")
    worker = start_worker(*options, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    ask_for_a_report(web)

    (request,) = collector.wait_for("POST admin/jobs/report/add/")
    (sent,) = collector.wait_for("apply_async/jobs.tasks.write_report", request)
    (run,) = collector.wait_for("run/jobs.tasks.write_report", sent)
    (sent_on,) = collector.wait_for("apply_async/tests.tasks.misbehave", run)
    (first,) = collector.wait_for("run/tests.tasks.misbehave", sent_on)
    (again,) = collector.wait_for("apply_async/tests.tasks.misbehave", first)
    (second,) = collector.wait_for("run/tests.tasks.misbehave", again)
    collector.wait_for("INSERT", request)  # through web's pool
    collector.wait_for("UPDATE", run)
    assert request.parent == ""
    ours = (request, sent, run, sent_on, first, again, second)
    assert {span.trace for span in ours} == {request.trace}
    assert [span.service for span in ours] == ["web", "web", *["worker"] * 5]
    assert {line["trace_id"] for line in worker.events("task_succeeded")} == {request.trace}


def test_probes_are_not_traced(start_web: Callable[..., Web], collector: Collector) -> None:
    web = start_web(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert web.get("/readyz")[0] == 200  # which asks the database
    assert web.get("/")[0] == 200
    collector.wait_for("GET home")
    web.process.terminate()
    web.process.wait()
    assert {span.name for span in collector.spans() if not span.parent} == {"GET home"}


def test_a_trace_begins_in_beat(
    start_beat: StartWorker, start_worker: StartWorker, collector: Collector
) -> None:
    start_worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    start_beat("schedule", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="the-clock")
    (sent, *_) = collector.wait_for("apply_async/jobs.tasks.delete_old_reports")
    (run,) = collector.wait_for("run/jobs.tasks.delete_old_reports", sent)
    assert (sent.service, sent.parent, sent.trace) == ("the-clock", "", run.trace)


@pytest.mark.parametrize(
    "pool", [("--max-tasks-per-child", "1"), ("--pool", "prefork"), ("--pool", "solo"), ("--pool", "threads")]
)
def test_the_end_of_a_process_sends_what_is_left(
    start_worker: StartWorker, collector: Collector, pool: tuple[str, str]
) -> None:
    worker = start_worker(*pool, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **LATER)
    tasks.misbehave.delay("not at all")
    eventually(lambda: worker.events("task_succeeded"), "its end")
    if pool != ("--max-tasks-per-child", "1"):
        worker.process.terminate()
        worker.process.wait()
    collector.wait_for("run/tests.tasks.misbehave")


@pytest.mark.parametrize("is_frozen", [True, False], ids=["frozen", "absent"])
def test_a_collector_that_is_away_holds_up_nobody(
    start_web: Callable[..., Web],
    start_worker: StartWorker,
    collector: Collector,
    is_frozen: bool,
) -> None:
    meanwhile: AbstractContextManager[None] = collector.frozen() if is_frozen else nullcontext()
    url = collector.url if is_frozen else f"http://127.0.0.1:{free_port()}"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with meanwhile:
        web, worker = start_web(**environment), start_worker(**environment)
        for _ in range(20):
            with urlopen(Request(web.url, headers={"Host": "testserver"}), timeout=5) as answer:
                assert answer.status == 200
            tasks.misbehave.delay("not at all")
        eventually(lambda: len(worker.events("task_succeeded")) == 20, "the ends of all")
        eventually(lambda: collector.asked.is_set() or not is_frozen, "spans to be sent")
        for process in (worker.process, web.process):
            process.terminate()
            assert process.wait(10) == 0  # a second for each process, and the main one ends last


@pytest.mark.parametrize("how", ["by saying what it knows", "by saying it again and again"])
def test_redacted_arguments_are_in_no_span(start_worker: StartWorker, collector: Collector, how: str) -> None:
    start_worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, REDACT="tests.tasks.misbehave")
    settings.RELIABILITY["redact"] = ["tests.tasks.misbehave"]
    try:
        tasks.misbehave.delay(how, letter=SECRET)
    finally:
        settings.RELIABILITY["redact"] = []
    collector.wait_for("run/tests.tasks.misbehave")
    assert SECRET.encode() not in b"".join(collector.bodies)


@pytest.mark.promise("retries")  # which this test takes away
def test_no_password_of_a_server_and_no_query_of_a_url_is_in_a_span(
    start_web: Callable[..., Web],
    start_worker: StartWorker,
    collector: Collector,
) -> None:
    """Nor when the database is away, and its client's error tells how it tried."""
    absent = f"postgres://app:{SECRET}@127.0.0.1:{free_port()}/app"
    start_worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, WITHOUT="retries", DATABASE_URL=absent)
    write_report.delay(1)
    (run, *_) = collector.wait_for("run/jobs.tasks.write_report")
    assert run.failed
    web = start_web(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert web.get(f"/admin/login/?token={SECRET}")[0] == 200
    collector.wait_for("GET admin/login/")
    assert SECRET.encode() not in b"".join(collector.bodies)


@pytest.mark.promise("publish_errors")
def test_a_task_that_is_not_sent_ends_its_span(collector: Collector, tmp_path: Path) -> None:
    """What the thread does next is no part of it."""
    code = """
import django; django.setup()
from opentelemetry import trace
from config import tracing
from jobs.tasks import write_report
from kombu.exceptions import OperationalError
tracing.start("web")
try:
    write_report.delay(1)
except OperationalError:
    print(trace.get_current_span().get_span_context().is_valid)
"""
    assert run(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) == "False\n"
    (sent,) = collector.wait_for("apply_async/jobs.tasks.write_report")
    assert sent.failed


def test_without_the_variable_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """But the parts that the client of Redis imports where they are installed."""
    code = """
import sys, config.wsgi
tracing = ("opentelemetry.instrumentation", "opentelemetry.exporter", "config.tracing")
print([name for name in sys.modules if name.startswith(tracing)])
"""
    assert run(code, tmp_path) == "[]\n"


def run(code: str, folder: Path, **environment: Any) -> str:
    """Return what this code prints, in a process whose broker is away."""
    environment = {"DATABASE_URL": database_url(), "BROKER_URL": absent_broker(folder), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=BASE_DIR,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
