"""Beat: one, in a process of its own, that goes on where it was; and a schedule that is checked."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.checks import CheckMessage, run_checks

from config.celery import app
from dev import BASE_DIR
from dev.processes import free_port
from tests.harness import PATIENCE, StartWorker, Worker, eventually


@pytest.mark.promise("refuse_embedded_beat")
@pytest.mark.parametrize("option", ["-B", "--beat"])
def test_a_worker_with_beat_inside_is_refused(option: str, tmp_path: Path) -> None:
    """With one line, before it asks for the broker: this one is not there."""
    address = os.environ["BROKER_URL"].rpartition(":")[0]
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "config",
            "worker",
            option,
            "--schedule",
            tmp_path / "schedule",
        ],
        cwd=BASE_DIR,
        env={**os.environ, "BROKER_URL": f"{address}:{free_port()}/"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "sends every entry of the schedule once more" in line
    assert "`celery -A config beat`" in line
    assert list(tmp_path.iterdir()) == []


def test_without_the_refusal_the_worker_would_run_beat(start_worker: StartWorker, tmp_path: Path) -> None:
    schedule = str(tmp_path / "schedule")
    worker = start_worker("-B", "--schedule", schedule, WITHOUT="refuse_embedded_beat")
    worker.wait_for("beat: Starting...")


def sent(beat: Worker) -> int:
    """Return how often it has sent the task."""
    return beat.log.read_text().count("Sending due task tick")


def take_message() -> Any:
    """Take a message out of the broker, None when there is none."""
    with app.connection_for_read() as connection:
        return app.amqp.queues[app.conf.task_default_queue](connection.default_channel).get(no_ack=True)


@pytest.mark.promise("drain")  # without it beat may end with an error
def test_a_beat_that_keeps_its_file_goes_on_where_it_was(start_beat: StartWorker) -> None:
    """A deploy does not start its interval at zero again, as it does for one whose file is lost."""
    before = start_beat("kept")
    eventually(lambda: sent(before), "the first task")
    before.process.send_signal(signal.SIGTERM)
    assert before.process.wait(PATIENCE) == 0
    lost, kept = start_beat("lost"), start_beat("kept")
    eventually(lambda: sent(kept) or sent(lost), "a task of either")
    assert (sent(kept), sent(lost)) == (1, 0)
    eventually(lambda: sent(lost), "a task of the other: it works too")


def test_what_beat_sends_expires(start_beat: StartWorker) -> None:
    start_beat("schedule")
    message = eventually(take_message, "a message")
    seconds = (datetime.fromisoformat(message.headers["expires"]) - datetime.now(UTC)).total_seconds()
    assert 0 < seconds <= 60


class Door(socketserver.ThreadingTCPServer):
    """Leads to the broker. Who comes first gets SIGTERM, and is let in."""

    daemon_threads = True
    visitor: Worker | None = None

    def __init__(self) -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.broker = urlsplit(os.environ["BROKER_URL"])
        self.url = self.broker.geturl().replace(f":{self.broker.port}", f":{self.server_address[1]}")

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Pass on what either says."""
        if self.visitor:
            self.visitor.process.send_signal(signal.SIGTERM)
            self.visitor = None
        with socket.create_connection((self.broker.hostname, self.broker.port)) as broker:
            threading.Thread(target=pass_on, args=(broker, request), daemon=True).start()
            pass_on(request, broker)


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Copy until either is closed."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.mark.promise("drain")
def test_a_beat_that_is_stopped_while_it_sends_sends_first(start_beat: StartWorker) -> None:
    """Celery's own handler would end it in the middle: the schedule says sent, and nothing was."""
    with Door() as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        door.visitor = beat = start_beat("schedule", BROKER_URL=door.url, WITHOUT="check_broker")
        assert beat.process.wait(PATIENCE) == 0
        door.shutdown()
    assert door.visitor is None
    assert take_message()


@pytest.mark.promise("drain")
def test_a_beat_whose_broker_is_away_stops_all_the_same(start_beat: StartWorker) -> None:
    """It would try again for ever, and be killed at the end of the grace."""
    address = os.environ["BROKER_URL"].rpartition(":")[0]
    beat = start_beat("schedule", BROKER_URL=f"{address}:{free_port()}/")
    beat.wait_for("beat: Connection error")
    beat.process.send_signal(signal.SIGTERM)
    assert beat.process.wait(PATIENCE) == 0


def complaints(monkeypatch: pytest.MonkeyPatch, **entry: Any) -> list[CheckMessage]:
    """Return what the system checks say about this entry, beside those of the project."""
    monkeypatch.setitem(app.conf.beat_schedule, "nightly", {"schedule": 60, **entry})
    return [message for message in run_checks() if "'nightly'" in message.msg]


@pytest.mark.promise("check_schedule")
def test_an_entry_that_names_no_task_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = complaints(monkeypatch, task="jobs.tasks.misspelt", options={"expires": 60})
    assert message.id == "reliability.E030"
    assert "The entry 'nightly' of beat_schedule names 'jobs.tasks.misspelt'" in message.msg


@pytest.mark.promise("check_schedule")
@pytest.mark.parametrize("options", [{}, {"options": {}}, {"options": {"expires": None}}], ids=str)
def test_an_entry_that_does_not_expire_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    (message,) = complaints(monkeypatch, task="jobs.tasks.delete_old_reports", **options)
    assert message.id == "reliability.W031"
    assert "The entry 'nightly' of beat_schedule has no `expires`" in message.msg


def test_an_entry_whose_task_expires_by_itself_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.tasks["jobs.tasks.delete_old_reports"], "expires", 60)
    assert complaints(monkeypatch, task="jobs.tasks.delete_old_reports") == []


def test_the_schedule_of_this_project_is_fine() -> None:
    assert [message for message in run_checks() if "beat_schedule" in message.msg] == []
