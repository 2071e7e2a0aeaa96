"""A worker that is alive and takes nothing: after a broken connection Celery is known to end up there.

Nothing in the worker tells. So a thread asks the broker, over a connection of its own, what waits in the
worker's queues. When something does, look after look, the worker has room and yet nothing comes, it is deaf.
"""

import atexit
import os
import signal
import sys
import threading
import time
from typing import Any

import structlog
from celery.worker import state
from kombu import Connection
from kombu.transport import virtual

logger = structlog.get_logger(__name__)
EVERY = 5  # seconds between two looks
DEAF_AFTER = 60  # seconds without a message, while there are some
MARK = "RESTARTED_BECAUSE_DEAF"  # in the environment of a worker that has done so and got no message since


class Watch(threading.Thread):
    """Looks at one worker for as long as it runs."""

    def __init__(self, worker: Any, *, restart: bool) -> None:
        super().__init__(name="listening", daemon=True)
        self.worker, self.restart = worker, restart
        self.reachable = False  # whether the broker answered at the last look
        self.waiting: dict[str, int] = {}  # messages by queue, at the last look
        self.messages = 0  # how many the worker had got by then
        self.deaf_since: float | None = None
        self.connection: Connection | None = None

    @property
    def consumer(self) -> Any:
        """Celery's consumer; None before the worker has one."""
        return getattr(self.worker, "consumer", None)

    @property
    def connected(self) -> bool:
        """Whether the worker has a connection to its broker, be it a dead one."""
        return bool(self.consumer and self.consumer.connection)

    @property
    def queues(self) -> dict[str, bool]:
        """The queues that this worker is to take tasks from, and whether it has told the broker so."""
        wanted = self.worker.app.amqp.queues.consume_from
        taking = self.consumer.task_consumer if self.connected else None
        return {name: bool(taking and taking.consuming_from(name)) for name in wanted}

    @property
    def is_deaf(self) -> bool:
        """Whether messages have waited for too long while none came."""
        return self.deaf_since is not None and time.monotonic() - self.deaf_since > DEAF_AFTER

    @property
    def takes_tasks(self) -> bool:
        """Whether it is connected to a broker that answers, takes tasks, and was not asked to end."""
        return (
            self.reachable
            and all(self.queues.values())
            and not self.is_deaf
            and not (self.consumer and self.consumer.draining)
        )

    def facts(self) -> dict[str, Any]:
        """Return what `takes_tasks` rests on."""
        return {"broker": self.reachable, "queues": self.queues, "deaf": self.is_deaf}

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(EVERY if self.reachable else 1)

    def look(self) -> None:
        """Ask the broker, and draw the conclusion."""
        self.reachable = self._ask()
        before, self.messages = self.messages, self.consumer.messages if self.consumer else 0
        if self.messages != before:
            os.environ.pop(MARK, None)
        if (
            not (self.reachable and self._has_room() and any(self.waiting.values()))
            or self.messages != before
        ):
            self.deaf_since = None
        elif self.deaf_since is None:
            self.deaf_since = time.monotonic()
        elif self.is_deaf:
            self._say_so()

    def _ask(self) -> bool:
        """Return whether the broker answered. The worker goes first: to some it refuses to speak."""
        if not self.connected:
            return False
        try:
            self.waiting = self._lengths()
        except Exception as error:  # each transport has its own, and this thread must not end
            logger.debug("broker_not_asked", error=repr(error))
            self._disconnect()
            return False
        return True

    def _lengths(self) -> dict[str, int]:
        if self.connection is None:
            self.connection = self.worker.app.connection_for_read()
        channel = self.connection.default_channel
        return {name: _length(channel, name) for name in self.worker.app.amqp.queues.consume_from}

    def _disconnect(self) -> None:
        if self.connection is not None:
            self.connection.collect(socket_timeout=1)
            self.connection = None

    def _has_room(self) -> bool:
        consumer = self.consumer
        if not self.connected or consumer.draining:
            return False
        held = len(state.reserved_requests) + consumer.set_aside()
        return bool(held < consumer.initial_prefetch_count)

    def _say_so(self) -> None:
        again = self.restart and MARK not in os.environ
        logger.error("worker_is_deaf", waiting=self.waiting, restarts=again)
        if again:
            os.environ[MARK] = "1"
            atexit.register(os.execv, sys.executable, sys.orig_argv)
            os.kill(os.getpid(), signal.SIGTERM)  # what runs may finish


def _length(channel: Any, queue: str) -> int:
    """Return how many messages are ready. To kombu, a queue of Redis that is empty does not exist."""
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except channel.connection.channel_errors:
        if isinstance(channel, virtual.Channel):
            return 0
        raise
