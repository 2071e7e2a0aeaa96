"""What the tests use to run, watch and kill real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from django.conf import settings
from kombu import Connection
from prometheus_client.parser import text_string_to_metric_families

from config.celery import app
from dev import BASE_DIR
from dev.processes import free_port

PATIENCE = 60  # seconds; an upper bound against hangs, not an expectation
LONG: dict[str, Any] = {"soft_time_limit": 40, "time_limit": 45}  # of what must not end by itself
COMMAND = ("-A", "tests.app", "worker", "--include", "tests.tasks")  # of celery


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of `condition`; AssertionError when there is none within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)
    return value


def database_url() -> str:
    """Return the URL of the test database, for processes of their own."""
    database = settings.DATABASES["default"]
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)


def waiting_messages(queue: str = "celery") -> int:
    """Return how many messages wait in the broker for a worker."""
    with app.connection_for_read() as connection:
        return int(_channel(connection).queue_declare(queue, passive=True).message_count)


# jinja: if cookiecutter.broker == "redis"
def broker_is_empty() -> bool:
    """Return whether the broker holds nothing at all."""
    with app.connection_for_read() as connection:
        return int(_channel(connection).client.dbsize()) == 0


def empty_broker() -> None:
    """Drop what earlier tests left: messages, and those that dead workers still hold."""
    with app.connection_for_write() as connection:
        _channel(connection).client.flushdb()


# jinja: else
def broker_is_empty() -> bool:
    """Return whether nobody has made the queue that the tests use."""
    try:
        waiting_messages()
    except app.connection_for_read().channel_errors:
        return True
    return False


def empty_broker() -> None:
    """Drop the messages that earlier tests left, those delayed or held by dead workers too."""
    with app.connection_for_write() as connection:
        for level in reversed(range(28)):  # messages go down from queue to queue
            try:
                _channel(connection).queue_purge(f"celery_delayed_{level}")
            except connection.channel_errors:
                break  # no worker has made these queues yet
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.values():
            bound = queue(_channel(connection))
            bound.delete()
            bound.declare()  # a sender that declared it once does not do so again


# jinja: endif
def _channel(connection: Connection) -> Any:
    """Return the transport's own channel; what it can do differs by transport."""
    return connection.default_channel


def ask_worker(question: str) -> Any:
    """Return what the one worker that runs answers to this question of `celery inspect`.

    A worker on Redis that has just begun may not hear the first time, and a busy machine takes longer
    than the second that Celery grants.
    """
    answers = eventually(
        lambda: getattr(app.control.inspect(timeout=5, limit=1), question)(), f"an answer to {question}"
    )
    (answer,) = answers.values()
    return answer


class Worker:
    """A real worker in a session of its own, so that a signal can reach it alone or with its children."""

    program: Sequence[str] = ("-m", "celery")

    def __init__(self, log: Path, environment: dict[str, str], command: Sequence[str] = COMMAND) -> None:
        """Start it and return when it is ready, or at once when the environment names another broker."""
        self.log, self.port = log, int(environment.get("METRICS_PORT") or free_port())
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, *command],
                cwd=BASE_DIR,
                env={
                    **os.environ,
                    "DATABASE_URL": database_url(),
                    "METRICS_PORT": str(self.port),
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if "BROKER_URL" not in environment:
            self.wait_for("ready.")

    def get(self, page: str, timeout: float = 5) -> tuple[int, str]:
        """Return status and text of a page that the process itself serves; OSError when it does not."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{page}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def status(self, page: str, timeout: float = 5) -> int | None:
        """Return the status of such a page, None when there is no answer."""
        try:
            return self.get(page, timeout)[0]
        except OSError:
            return None

    def wait_for(self, text: str) -> None:
        """Return once the log holds `text`."""
        eventually(lambda: text in self.log.read_text() or self._fail_if_ended(), f"{text} in {self.log}")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's JSON lines of this event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def deafen(self) -> None:
        """Have the broker forget this worker, which has tests/wedge.py, and return once it has."""
        before = len(self.events("deafened"))
        self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: len(self.events("deafened")) > before, "the broker to forget the worker")

    def wait_for_failure(self) -> str:
        """Return the first failure of a task that the log tells: the exception's class and its text."""
        (error, *_) = eventually(lambda: self.events("task_failed"), f"a failed task in {self.log}")
        return f"{error['exception'][0]['exc_type']}: {error['error']}"

    def kill(self) -> None:
        """SIGKILL the worker and its children at once, as a power cut would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _fail_if_ended(self) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.log.read_text()}"
        return False


class Exporter(Worker):
    """The exporter, in a process of its own."""

    program = ("manage.py", "exporter")


def figure(process: Worker, name: str, /, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels; -1 when there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(process.get("/metrics")[1])
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]
    return sum(found) if found else -1


def answers(process: Worker) -> bool:
    """Return whether the exporter knows the broker's figures."""
    with suppress(OSError):
        return figure(process, "celery_source_up", source="broker") == 1
    return False


StartWorker = Callable[..., Worker]
