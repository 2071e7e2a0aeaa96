"""The admin: log in, ask for a report, see it written; one request id through all of it."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from jobs.models import Report
from tests.harness import StartWorker, eventually


def test_a_report_asked_for_in_the_admin_is_written(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker()
    browser = Client()
    get_user_model()._default_manager.create_superuser("admin", password="correct horse")
    assert browser.login(username="admin", password="correct horse")
    answer = browser.post("/admin/jobs/report/add/", {"title": "Dogs", "seconds": "0"}, secure=True)
    assert answer.status_code == 302
    written = Report.objects.filter(title="Dogs", finished_at__isnull=False)
    eventually(written.exists, "the report is written")

    messages = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    (asked,) = [message for message in messages if message["event"] == "request_started"]
    (started,) = worker.events("task_started")
    assert started["request_id"] == asked["request_id"]
