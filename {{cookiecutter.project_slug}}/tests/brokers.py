"""What waits in a broker; and brokers of a test's own, to be frozen and killed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import celery
import pytest
from kombu.message import Message

from config.celery import app as default_app
from dev.processes import Server, free_port
from dev.stack import SERVERS
from reliability.application import Celery
from tests.harness import empty_broker, eventually

_begun = [""]  # when the test began, as the header `sent_at` tells it
(KIND,) = (server for server in SERVERS if "BROKER_URL" in server.variables)


def received(of: celery.Celery = default_app) -> list[Message]:
    """Take all messages out of the application's queue, and return those of this test, in their order.

    What was delayed when a test ended, and due while its queue was replaced, RabbitMQ may deliver much later.
    """
    with of.connection_for_read() as opened:
        waiting = of.amqp.queues["celery"](opened.default_channel)
        waiting.declare()
        taken = list(iter(lambda: waiting.get(no_ack=True, accept=["json"]), None))
    return [message for message in taken if message.headers.get("sent_at", _begun[0]) >= _begun[0]]


def received_ids(of: celery.Celery = default_app) -> list[str]:
    """Take all messages out of the application's queue, and return the ids of their tasks."""
    return [message.headers["id"] for message in received(of)]


def application(url: str) -> Celery:
    """Return an application with the project's settings and this broker. It knows no tasks."""
    app = Celery("elsewhere", set_as_current=False)
    app.config_from_object("config.celeryconfig")
    app.conf.update(broker_url=url)
    return app


def absent_broker(folder: Path) -> str:
    """Return the URL of a broker that does not run."""
    return KIND(folder, free_port(), "secret", durable=False).urls["BROKER_URL"]


class Broker:
    """A real broker and an application that uses it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.urls["BROKER_URL"]
        self.app = application(self.url)

    def start(self) -> None:
        """Start it, empty."""
        # RabbitMQ 3.10 that is killed within a second of making a queue never finds its leader again.
        shutil.rmtree(self.server.folder)
        self.server.start()
        received(self.app)

    def empty(self) -> None:
        """Drop its messages, on Redis those too that dead workers hold."""
        with self.app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            if hasattr(channel, "client"):
                channel.client.flushdb()
        received(self.app)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it in its tracks: it keeps its connections, accepts new ones and answers none."""
        self._signal(signal.SIGSTOP)
        try:
            eventually(self._is_stopped, "the broker to stop")
            yield
        finally:
            with suppress(ProcessLookupError):  # killed meanwhile
                self._signal(signal.SIGCONT)

    def disconnect(self) -> None:
        """Drop the connection that the next task would be sent with."""
        with self.app.producer_or_acquire() as producer:
            producer.connection.collect()

    def kill(self) -> None:
        """Kill it, and return when it answers no more."""
        self._signal(signal.SIGKILL)
        eventually(lambda: not self.server.answers(), "the end of the broker")
        self.server.stop()

    def restart(self) -> None:
        """Start it again, with what it had stored."""
        self.server.start()

    def _is_stopped(self) -> bool:
        assert self.server.process
        listed = subprocess.run(
            ["ps", "-o", "pid=,state=", "-g", str(self.server.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        states = dict(line.split() for line in listed.stdout.splitlines())
        # A child that had saved and ended just then is a zombie for as long as the broker stands still.
        return states.pop(str(self.server.process.pid)) == "T" and set(states.values()) <= {"T", "Z"}

    def _signal(self, number: signal.Signals) -> None:
        assert self.server.process
        os.killpg(self.server.process.pid, number)


@pytest.fixture
def broker(servers: None, transactional_db: None) -> Iterator[None]:
    """The broker without messages, and a database in which transactions really commit."""
    empty_broker()
    received()  # makes the queue, which a producer with a connection believes to exist
    _begun[0] = datetime.now(UTC).isoformat()
    yield
    empty_broker()


@pytest.fixture(scope="session")
def started_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The server behind `other_broker`."""
    server = KIND(tmp_path_factory.mktemp("broker"), free_port(), "secret", durable=False)
    broker = Broker(server)
    broker.start()
    try:
        yield broker
    finally:
        pool: Any = broker.app.pool
        pool.force_close_all()
        server.stop()


@pytest.fixture
def other_broker(started_broker: Broker) -> Broker:
    """A second broker, to be frozen and killed, without what killed workers of earlier tests gave back."""
    started_broker.empty()
    return started_broker
