"""Tasks that misbehave on purpose. The workers of the tests know them, no other does."""

import os
import signal
import time
from typing import Any

from celery import shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from django.core.cache import cache

from config import celeryconfig


def runs(task_id: str) -> int:
    """Return how often the task with this id has begun."""
    return int(cache.get(f"runs-of-{task_id}", 0))


def count(task: Any) -> int:
    """Note that this task has begun, and return how often it has."""
    cache.add(f"runs-of-{task.request.id}", 0)
    return int(cache.incr(f"runs-of-{task.request.id}"))


@shared_task
def stubborn() -> None:
    """Go on after the soft limit, as code with a broad `except` does."""
    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        time.sleep(600)


@shared_task
def misbehave(how: str, **details: Any) -> None:
    """Fail as asked."""
    run = count(misbehave)
    match how:
        case "with an error":
            raise ValueError("on purpose")
        case "by saying what it knows":
            raise ValueError(str(details))
        case "by saying it again and again":
            raise ConnectionError(str(details))
        case "until the soft limit":
            time.sleep(600)
        case "until the hard limit":
            stubborn()
        case "by rejecting it":
            raise Reject("on purpose")
        case "once" if run == 1:
            raise ConnectionError("on purpose")


@shared_task(acks_on_failure_or_timeout=False)
def unacknowledged() -> None:
    """Fail, where Celery then rejects the message."""
    raise ValueError("on purpose")


@shared_task(acks_on_failure_or_timeout=False)
def persistent() -> None:
    """Reach the hard limit in the first run; Celery then puts the message back."""
    if count(persistent) == 1:
        stubborn()


@shared_task(bind=True, rate_limit="20/m")
def limited(self: Any) -> None:
    """Run every three seconds at the most."""
    count(self)


@shared_task(bind=True, rate_limit="2/m")
def rare(self: Any) -> None:
    """Run every half a minute at the most."""
    count(self)


@shared_task(bind=True, max_retries=1)
def deadly(self: Any) -> None:
    """Kill the process that runs it, as the OOM killer would."""
    count(self)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, default_retry_delay=10**12)
def deadly_once(self: Any) -> None:
    """Kill the process, in the first run; a retry after so long a delay cannot be sent."""
    if count(self) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, max_retries=2, retry_backoff_max=1)
def unreachable(self: Any) -> None:
    """Meet the same transient error each time."""
    count(self)
    raise ConnectionError("on purpose")


@shared_task
def send_another() -> None:
    """Send a task."""
    misbehave.delay("not at all")


@shared_task(bind=True)
def take(self: Any, seconds: float) -> None:
    """Take some time."""
    count(self)
    time.sleep(seconds)


@shared_task(bind=True, time_limit=celeryconfig.LONG_TIME_LIMIT or celeryconfig.task_time_limit)
def lengthy(self: Any, seconds: float = 0) -> None:
    """Take some time; it may take more than other tasks."""
    count(self)
    time.sleep(seconds)
    cache.set(f"end-of-{self.request.id}", True)


@shared_task(bind=True)
def grow(self: Any, megabytes: int) -> None:
    """Take this much memory, free it, and note which process did it."""
    memory = b"x" * (megabytes << 20)
    assert memory
    cache.set(f"process-of-{self.request.id}", os.getpid())


def ended(task_id: str) -> bool:
    """Return whether the lengthy task with this id has come to its end."""
    return bool(cache.get(f"end-of-{task_id}"))


def process(task_id: str) -> int | None:
    """Return the process that ran the task with this id, None while none has."""
    pid: int | None = cache.get(f"process-of-{task_id}")
    return pid


@shared_task(max_retries=1)
def greedy() -> None:
    """Find no memory."""
    count(greedy)
    raise MemoryError("on purpose")
