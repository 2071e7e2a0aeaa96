"""The example tasks. Copy the test beside the task."""

import socketserver
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import Report
from jobs.tasks import delete_old_reports, send_report, write_report
from tests.harness import StartWorker, eventually


@pytest.mark.django_db
def test_write_report_is_idempotent() -> None:
    """A second run, as after a fault, leaves the finished report as it is."""
    report = Report.objects.create(title="Bees", seconds=0)
    write_report(report.pk)
    report.refresh_from_db()
    finished_at = report.finished_at
    write_report(report.pk)
    report.refresh_from_db()
    assert finished_at is not None
    assert (report.finished_at, report.attempts) == (finished_at, 1)


@pytest.mark.django_db
def test_delete_old_reports_keeps_recent_and_unfinished_ones() -> None:
    now = timezone.now()
    Report.objects.create(title="old", finished_at=now - timedelta(days=31))
    Report.objects.create(title="recent", finished_at=now - timedelta(days=29))
    Report.objects.create(title="unfinished")
    assert delete_old_reports() == 1
    assert set(Report.objects.values_list("title", flat=True)) == {"recent", "unfinished"}


class BrokenMailServer(socketserver.ThreadingTCPServer):
    """Accepts connections and breaks them off; counts them."""

    connections = 0

    def finish_request(self, request: object, client_address: object) -> None:
        self.connections += 1


@pytest.fixture
def mail_server() -> Iterator[BrokenMailServer]:
    with BrokenMailServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_send_report_tries_again(start_worker: StartWorker, mail_server: BrokenMailServer) -> None:
    """A mail server that breaks off is asked again."""
    worker = start_worker(EMAIL_URL=f"smtp://127.0.0.1:{mail_server.server_address[1]}")
    report = Report.objects.create(title="Crows", text="All about Crows.", finished_at=timezone.now())
    send_report.delay(report.pk, "reader@example.com")
    eventually(lambda: mail_server.connections >= 2, "a second attempt")
    assert worker.events("task_retrying")
