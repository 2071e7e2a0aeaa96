"""Is this worker alive, and does it take tasks? Answered from what its main process knows."""

from collections.abc import Iterable
from typing import Any

from celery.signals import worker_init
from celery.worker import state
from django.conf import settings

from health import systemd
from health.listening import Watch
from health.server import Answer, as_json, serve
from reliability import pulse

LIMIT = 40  # seconds that the event loop may stand still; a probe each 10 s then fails within 60


def now_in(requests: Iterable[Any]) -> tuple[Any, ...]:
    """Return the members of a set of Celery's, which the main thread changes meanwhile."""
    while True:
        try:
            return tuple(requests)
        except RuntimeError:  # it did so just now
            continue


class Health:
    """One worker's answers."""

    def __init__(self, worker: Any) -> None:
        """`worker` is Celery's WorkController. Serves from now on."""
        self.worker = worker
        worker.health = self  # for metrics/worker.py
        self.watch = Watch(worker, restart=settings.WORKER_RESTART_IF_DEAF)
        serve("worker", {"/livez": self.livez, "/readyz": self.readyz})
        self.watch.start()
        systemd.ready(lambda: self.livez().status == 200)

    def livez(self) -> Answer:
        """Does the event loop turn? The broker has no say: no restart here mends an outage there."""
        age, limit = pulse.age(), LIMIT + self._task_in_the_loop()
        return as_json(age <= limit, loop_age=round(age, 1), limit=limit)

    def readyz(self) -> Answer:
        """Is it connected, and does it take tasks from its queues?"""
        return as_json(self.watch.takes_tasks, **self.watch.facts())

    def _task_in_the_loop(self) -> float:
        """Return how long a task may hold up the loop: the solo pool runs it there."""
        if self.worker.pool is None or "solo" not in type(self.worker.pool).__module__:
            return 0
        limits = [
            request.time_limits[0] or request.task.time_limit for request in now_in(state.active_requests)
        ]
        return max(filter(None, limits), default=0)


def watch(sender: Any, **_: Any) -> None:
    """Begin before the worker connects: one that waits for its broker is asked, too."""
    Health(sender)


def connect() -> None:
    """Begin with each worker."""
    worker_init.connect(watch)
