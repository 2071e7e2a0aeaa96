"""What makes a worker (`--include tests.wedge`) or a beat sick: a signal to its main process.

The limits of health/ are seconds there.
"""

import signal
import threading
from types import FrameType
from typing import Any

import structlog
from celery.signals import beat_init, worker_ready

from health import beat, listening, worker

logger = structlog.get_logger(__name__)
LIMIT = 3  # seconds
BEAT_LIMIT = 6  # more than beat sleeps


def shorten(**_: Any) -> None:
    """Have the limits of this process be seconds."""
    worker.LIMIT, beat.LIMIT = LIMIT, BEAT_LIMIT
    listening.DEAF_AFTER, listening.EVERY = LIMIT, 1


def block(_signal: int, _frame: FrameType | None) -> None:
    """SIGUSR1: wait in the main thread for a lock that is never free."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def obey_block(**_: Any) -> None:
    """From now on; Celery's worker takes the signal for itself when it starts."""
    signal.signal(signal.SIGUSR1, block)


def obey_deafen(sender: Any, **_: Any) -> None:
    """SIGUSR2: have the broker forget that this worker takes tasks, without Celery's knowledge."""

    def forget() -> None:
        consumer = sender.task_consumer
        for tag in consumer._active_tags.values():
            consumer.channel.basic_cancel(tag)
        logger.warning("deafened")

    # Not in the signal's handler, which may come in the middle of a frame that is being read.
    signal.signal(signal.SIGUSR2, lambda *_: sender.hub.call_soon(forget))


worker_ready.connect(shorten)
beat_init.connect(shorten)
beat_init.connect(obey_block)
worker_ready.connect(obey_block)
worker_ready.connect(obey_deafen)
