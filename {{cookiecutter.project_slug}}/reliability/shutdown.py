"""SIGTERM: take no more, finish what can be finished, give the rest back, end.

Celery's own shutdowns stop the event loop while tasks finish: a soft one waits its whole time even when
all is done after a second, and RabbitMQ hears no heartbeat meanwhile. Here the loop goes on turning.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

from celery.signals import worker_ready
from celery.utils.log import get_logger
from celery.worker import state as _state

from reliability.conf import enabled

logger = get_logger(__name__)
state: Any = _state  # the stubs say None where it holds an exit status
LOOK = 0.2  # seconds between two looks at what still runs


class Drain:
    """The shutdown of one worker, from SIGTERM to its end."""

    def __init__(self, consumer: Any) -> None:
        """Have the event loop look for the signal: the handler itself only takes a note."""
        self.consumer = consumer
        self.cancelled: Any = None
        consumer.timer.call_repeatedly(LOOK, self.look)
        signal.signal(signal.SIGTERM, self.on_signal)

    def on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Note the signal. Without a connection no loop turns: then Celery's warm shutdown does it."""
        if self.consumer.draining:
            return
        self.consumer.draining = True
        seconds = self.consumer.app.conf.worker_soft_shutdown_timeout
        timer = threading.Timer(seconds, self.give_back)
        timer.daemon = True
        timer.start()
        if self.consumer.connection is None:
            end()

    def look(self) -> None:
        """Stop consuming, then end the worker as soon as nothing runs."""
        if not self.consumer.draining:
            return
        if self.consumer.task_consumer is not self.cancelled:  # a new one comes with each connection
            logger.warning("Draining: %d tasks may finish", len(_running()))
            self.cancelled = self.consumer.task_consumer
            self.cancelled.cancel()
            self.give_back_reserve()
        if not _running():
            end()

    def give_back_reserve(self) -> None:
        """Put back what no process has begun: others can run it now."""
        if self.consumer.controller.semaphore:
            self.consumer.controller.semaphore.clear()
        waiting = set(state.reserved_requests) - _running()
        for request in tuple(state.scheduled_requests):  # for their countdown
            self.consumer.timer.cancel(request._eta_timer_entry)
            waiting.add(request)
        for bucket in filter(None, self.consumer.task_buckets.values()):  # for their rate limit
            waiting.update(request for request, _ in bucket.contents)
            bucket.clear_pending()
        for request in waiting:
            request.reject(requeue=True)

    def give_back(self) -> None:
        """End the time for finishing: Celery's cold shutdown puts what still runs back into its queue."""
        self.consumer.app.conf.worker_soft_shutdown_timeout = 0
        os.kill(os.getpid(), signal.SIGQUIT)


def end() -> None:
    """Have Celery's warm shutdown end this worker."""
    state.should_stop = os.EX_OK


def _running() -> set[Any]:
    """Return what was given to a process, which may not have said yet that it began."""
    return {request for request in state.reserved_requests if request._apply_result is not None}


def start(sender: Any, **_: Any) -> None:
    """Take over SIGTERM, where the worker has an event loop."""
    if enabled("drain") and sender.hub is not None:
        Drain(sender)


def connect() -> None:
    """Begin when a worker is ready."""
    worker_ready.connect(start)
