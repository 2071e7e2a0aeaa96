"""Errors and runs of the schedule arrive at Sentry by SENTRY_DSN alone, no passwords, nothing redacted."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from dev.processes import free_port
from jobs.tasks import write_report
from tests import tasks
from tests.brokers import absent_broker
from tests.harness import StartWorker, eventually
from tests.receivers import Receiver
from tests.web import Web

SECRET = "hunter2-in-clear"
ABSENT_DATABASE = f"postgres://app:{SECRET}@127.0.0.1:{free_port()}/app"


class Sentry(Receiver):
    """A Sentry that only listens."""

    @property
    def dsn(self) -> str:
        """What leads here."""
        return f"http://key@{self.host}/1"

    def wait_for(self, text: str) -> str:
        """Return all that came, once something tells `text`."""
        eventually(lambda: text in self.told(), f"Sentry to hear of {text}")
        return self.told()

    def told(self) -> str:
        """Return all that came, a line of JSON for each part of an envelope."""
        return "\n".join(body.decode() for body in self.bodies)

    def check_ins(self, monitor: str) -> dict[str, dict[str, Any]]:
        """Return what came about the first run of this monitor, by its status."""
        lines = [json.loads(line) for line in self.told().splitlines() if line]
        told = [line for line in lines if line.get("monitor_slug") == monitor]
        return {line["status"]: line for line in told if line["check_in_id"] == told[0]["check_in_id"]}


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    """A real receiver."""
    with Sentry() as server:
        yield server


def test_an_error_of_a_request_arrives_without_passwords(
    start_web: Callable[..., Web],
    sentry: Sentry,
    tmp_path: Path,
) -> None:
    web = start_web(
        SENTRY_DSN=sentry.dsn,
        BEHIND_TLS_PROXY="true",
        DATABASE_URL=ABSENT_DATABASE,
        BROKER_URL=absent_broker(tmp_path).replace("secret", SECRET),
    )
    headers = {"X-Forwarded-Proto": "https", "Cookie": f"sessionid={'a' * 32}"}
    assert web.get("/admin/", **headers)[0] == 500
    told = sentry.wait_for("OperationalError")
    assert "/admin/" in told
    assert SECRET not in told


@pytest.mark.promise("retries")  # which this test takes away
def test_an_error_of_a_task_arrives_without_passwords(start_worker: StartWorker, sentry: Sentry) -> None:
    start_worker(SENTRY_DSN=sentry.dsn, WITHOUT="retries", DATABASE_URL=ABSENT_DATABASE)
    write_report.delay(1)
    told = sentry.wait_for("OperationalError")
    assert "jobs.tasks.write_report" in told
    assert SECRET not in told


def test_an_error_of_a_task_arrives_without_its_arguments(start_worker: StartWorker, sentry: Sentry) -> None:
    start_worker(SENTRY_DSN=sentry.dsn, REDACT="tests.tasks.misbehave")
    settings.RELIABILITY["redact"] = ["tests.tasks.misbehave"]
    try:
        tasks.misbehave.delay("with an error", letter=SECRET)
    finally:
        settings.RELIABILITY["redact"] = []
    told = sentry.wait_for("on purpose")
    assert "tests.tasks.misbehave" in told
    assert SECRET not in told


@pytest.mark.promise("retries")
def test_each_entry_of_the_schedule_is_a_cron_monitor(
    start_beat: StartWorker, start_worker: StartWorker, sentry: Sentry
) -> None:
    """A run that is tried again ends with its last attempt. What is due each few seconds has no monitor."""
    start_worker(SENTRY_DSN=sentry.dsn)
    beat = start_beat("schedule", app="tests.due", SENTRY_DSN=sentry.dsn)
    for monitor, end, schedule in [
        ("hourly", "ok", {"type": "crontab", "value": "17 * * * *"}),
        ("daily", "error", {"type": "interval", "value": 1, "unit": "day"}),
        ("retried", "ok", {"type": "interval", "value": 1, "unit": "hour"}),
        ("killed", "ok", {"type": "interval", "value": 1, "unit": "hour"}),
    ]:
        eventually(partial(lambda name: len(sentry.check_ins(name)) > 1, monitor), f"the end of {monitor}")
        told = sentry.check_ins(monitor)
        assert told.keys() == {"in_progress", end}
        for each in told.values():
            assert each["monitor_config"] == {"schedule": schedule, "timezone": "UTC"}
    eventually(lambda: beat.log.read_text().count("Sending due task often") > 1, "a second run")
    assert not sentry.check_ins("often")


def test_a_silent_sentry_holds_up_neither_beat_nor_worker(
    start_beat: StartWorker, start_worker: StartWorker, sentry: Sentry
) -> None:
    with sentry.frozen():
        worker = start_worker(SENTRY_DSN=sentry.dsn)
        beat = start_beat("schedule", app="tests.due", SENTRY_DSN=sentry.dsn)
        eventually(lambda: beat.log.read_text().count("Sending due task often") > 1, "a second run")
        eventually(lambda: len(worker.events("task_succeeded")) > 2, "tasks to run")
        assert sentry.asked.is_set()
        for process in (beat.process, worker.process):
            process.terminate()
            assert process.wait(15) == 0  # two seconds for each process in turn
