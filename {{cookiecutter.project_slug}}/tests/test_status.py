"""The status page shows what processes report, and says so where it cannot know."""

import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from status import plots, reading, reporting, summary
from status.reading import Report
from status.reporting import Figures
from tests.harness import StartWorker, Worker, eventually
from tests.letters import rows_of
from tests.reports import HEALTHY, put
from tests.test_deadletters_admin import Browser
from tests.test_monitoring import ALERTS

URL = "/admin/status/"
WELL = "Nothing is wrong that this page looks at."


@pytest.fixture
def browser(servers: None, transactional_db: None) -> Browser:
    """Somebody who looks, before any process has reported."""
    cache.clear()
    return Browser()


@pytest.fixture
def frozen_server() -> Iterator[str]:
    """The URL of a cache that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def report(role: str, changed: Figures | None = None, age: float = 0, name: str = "somewhere:1") -> Report:
    """Return what a healthy process of this role has reported, with some figures changed."""
    return Report(time.time() - age, HEALTHY[role] | (changed or {}), f"{role} {name}", [], age)


def has(browser: Browser, *texts: str) -> bool:
    """Return whether the page shows all of these texts, as a person reads them."""
    page = " ".join(re.sub(r"<[^>]+>", " ", browser.page(URL)).split())
    return all(text in page for text in texts)


def test_what_runs_is_shown(
    browser: Browser,
    start_worker: StartWorker,
    start_beat: StartWorker,
    start_exporter: Callable[..., Worker],
) -> None:
    exporter = start_exporter()
    start_worker()
    start_beat("schedule")
    eventually(
        partial(has, browser, "takes tasks", "celery, long", WELL, "Beat looked at its schedule"),
        "a page without problems",
    )
    assert "Unknown" not in browser.page(URL)
    eventually(partial(has, browser, "tick 2"), "the entry of the schedule, and when it was sent")
    exporter.process.terminate()
    exporter.process.wait(60)
    assert has(browser, "Unknown: No exporter reports")


def test_a_killed_worker_is_missed_and_one_that_ends_in_order_is_not(
    browser: Browser, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SILENT_AFTER", 1.2 * reporting.EVERY)
    first, second = start_worker(), start_worker()
    eventually(partial(has, browser, "worker-0", "worker-1"), "both workers")
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(60)
    assert not has(browser, "worker-0")
    second.kill()
    eventually(partial(has, browser, "is silent since", "docs/runbook.md: WorkerDown"), "its absence")


@pytest.mark.parametrize("how", ["absent", "frozen"])
def test_without_the_cache_nothing_is_known(
    browser: Browser, frozen_server: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    put("worker", 1, samples=0)
    rows_of(2)
    url = frozen_server if how == "frozen" else "redis://127.0.0.1:1"
    monkeypatch.setitem(settings.CACHES["default"], "LOCATION", url)
    assert has(browser, "The cache, where all processes report, does not answer.", "Dead letters: 2")
    assert not has(browser, WELL)
    assert not has(browser, "host-1")


def test_a_cache_that_never_answers_holds_up_no_worker(start_worker: StartWorker, frozen_server: str) -> None:
    worker = start_worker(CACHE_URL=frozen_server)
    begun = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(60)
    assert time.monotonic() - begun < 15


def test_figures_of_the_past_are_not_shown_as_those_of_now() -> None:
    """An exporter that fell silent, and one whose broker does not answer, leave queues unknown."""
    silent = summary.summary_of([report("exporter", age=3600)])
    away: Figures = {
        "celery_source_up": [({"source": "broker"}, 0)],
        "celery_queue_messages": [],
        "celery_queue_oldest_message_age_seconds": [],
    }
    for page in (silent, summary.summary_of([report("exporter", away)]), summary.summary_of([])):
        assert page.unknown["queues"]
        assert {queue.messages for queue in page.queues} == {None}
        assert {queue.age for queue in page.queues} == {None}
    (worker,) = summary.summary_of(
        [report("worker", {"celery_worker_running_tasks": [({}, 2)]}, 600)]
    ).workers
    assert worker.running is None
    assert not worker.is_known


def test_a_collector_that_fails_once_ends_no_reports(monkeypatch: pytest.MonkeyPatch, servers: None) -> None:
    cache.clear()
    calls: list[int] = []

    def fails_once() -> Figures:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("Set changed size during iteration")
        return HEALTHY["worker"]

    monkeypatch.setattr(reporting, "figures", fails_once)
    monkeypatch.setattr(reporting, "EVERY", 0.1)
    reporter = reporting.Reporter("worker", "celery@here")
    reporter.start()
    eventually(lambda: [one.name for one in reading.reports()] == ["celery@here:9812"], "a report")
    reporter.leave()
    assert reading.reports() == []


def test_exporters_share_their_past_and_the_one_that_sees_its_broker_is_believed(servers: None) -> None:
    """A deploy gives them new names, and several may run."""
    cache.clear()
    put("exporter", 1, samples=3)
    put("exporter", 2, samples=0)
    first, second = reading.reports()
    assert len(first.past) == len(second.past) == 3
    blind: Figures = {"celery_source_up": [({"source": "broker"}, 0), ({"source": "database"}, 1)]}
    others = [report(role) for role in ("worker", "beat")]
    for names in ("ab", "ba"):
        exporters = [report("exporter", blind, name=names[0]), report("exporter", name=names[1])]
        assert alerts_of(*others, *exporters) == set()


def test_what_the_cache_has_forgotten_is_unknown(servers: None) -> None:
    cache.clear()
    put("worker", 1, samples=0)
    reporting.connect_to_cache().delete(reporting.now_key("worker host-1:1"))
    (worker,) = summary.summary_of(reading.reports()).workers
    assert not worker.is_known
    assert "is not known" in worker.state


@pytest.mark.django_db
def test_the_page_says_unknown_and_not_zero() -> None:
    cache.clear()
    page = Browser().page(URL)
    assert "Unknown: No exporter reports" in page
    assert "Unknown: No worker reports" in page
    assert "Unknown: No beat reports" in page
    assert '<td data-label="Messages">?</td>' in page


def alerts_of(*reports: Report) -> set[str]:
    """Return the names of the alerts that these reports amount to."""
    return {problem.alert for problem in summary.summary_of(list(reports)).problems}


@pytest.mark.parametrize(
    ("role", "changed", "alert"),
    [
        ("worker", {"celery_worker_live": [({}, 0)]}, "WorkerWedged"),
        ("worker", {"celery_worker_deaf": [({}, 1)]}, "WorkerDeaf"),
        ("worker", {"celery_worker_consuming": [({"queue": "long"}, 1)]}, "NoWorkerForQueue"),
        (
            "exporter",
            {"celery_queue_oldest_message_age_seconds": [({"queue": "celery"}, summary.QUEUE_TOO_OLD + 1)]},
            "QueueTooOld",
        ),
        (
            "exporter",
            {
                "celery_unacked_messages": [({}, 1)],
                "celery_oldest_unacked_age_seconds": [({}, summary.PARKED_AFTER + 1)],
            },
            "ParkedMessages",
        ),
        ("exporter", {"celery_source_up": [({"source": "broker"}, 0)]}, "BrokerDown"),
        ("exporter", {"celery_source_up": [({"source": "database"}, 0)]}, "DatabaseDown"),
        ("beat", {"celery_beat_tick_age_seconds": [({}, summary.BEAT_SILENT + 1)]}, "BeatSilent"),
        (
            "beat",
            {"celery_beat_entry_late_seconds": [({"entry": "nightly"}, summary.ENTRY_LATE + 1)]},
            "ScheduleEntryLate",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_alert(role: str, changed: Figures, alert: str) -> None:
    healthy = {name: report(name) for name in HEALTHY}
    assert alerts_of(*healthy.values()) == set()
    assert alerts_of(*(healthy | {role: report(role, changed)}).values()) == {alert}
    assert alert in ALERTS


@pytest.mark.parametrize(
    ("role", "alert"), [("worker", "WorkerDown"), ("beat", "BeatDown"), ("exporter", "ExporterDown")]
)
def test_who_does_not_report_is_missed(role: str, alert: str) -> None:
    others = [report(name) for name in HEALTHY if name != role]
    assert alert in alerts_of(*others)
    assert alert in alerts_of(*others, report(role, age=3600))
    assert alert in ALERTS


def test_thresholds_are_those_of_the_alerts() -> None:
    for alert, seconds in {
        "QueueTooOld": summary.QUEUE_TOO_OLD,
        "BeatSilent": summary.BEAT_SILENT,
        "ScheduleEntryLate": summary.ENTRY_LATE,
    }.items():
        (minutes,) = re.findall(r"> (\d+) \* 60\b", ALERTS[alert])
        assert int(minutes) * 60 == seconds


@pytest.mark.django_db
def test_many_processes_cost_no_more_queries() -> None:
    cache.clear()
    browser, counts = Browser(), []
    rows_of(3)
    for number in range(51):
        if number in (1, 50):
            with CaptureQueriesContext(
                connection,
            ) as queries:
                browser.page(URL)
            counts.append(len(queries))
        put("worker", number, samples=60)
    assert counts[0] == counts[1] <= 4


@pytest.mark.django_db
def test_it_is_for_the_staff_alone() -> None:
    visitor = Client(headers={"X-Forwarded-Proto": "https"})
    assert visitor.get(URL, secure=True).status_code == 302
    visitor.force_login(get_user_model()._default_manager.create_user("bob"))
    assert visitor.get(URL, secure=True).status_code == 302
    rows_of(2)
    reader = Browser("add_user")
    assert "failed for good" in reader.page(URL)
    assert "/admin/reliability/deadletter/" not in reader.page(URL)


@pytest.mark.django_db
def test_names_are_shown_as_they_are() -> None:
    cache.clear()
    client = reporting.connect_to_cache()
    hostile = "worker <script>alert(1)</script>:1"
    client.set(reporting.now_key(hostile), json.dumps(HEALTHY["worker"]))
    client.zadd(reporting.PROCESSES, {hostile: time.time()})
    assert "&lt;script&gt;alert(1)" in Browser().page(URL)


def test_a_plot_breaks_where_nobody_knows() -> None:
    now = 10_000.0
    points = [(now - 600, 1.0), (now - 540, 2.0), (now - 60, 4.0), (now - 2 * plots.HOUR, 99.0)]
    drawn: Any = plots.plot(sorted(points), now)
    assert [len(line.split()) for line in drawn.lines] == [2, 2]
    assert drawn.highest == 4
    assert plots.plot([], now) is None


def test_a_counter_that_begins_anew_is_no_speed() -> None:
    minutes = [(0.0, 10.0), (60.0, 40.0), (120.0, 5.0), (180.0, 5.0), (900.0, 80.0)]
    assert plots.per_minute(minutes) == [(60.0, 30.0), (180.0, 0.0)]
