"""Counts what becomes of tasks, in the worker's main process.

All pool processes report to it, so there is one set of numbers to a worker, whichever process ran the task
and however often processes are replaced. Labels are names of registered tasks and of queues that exist: no
message can add another.
"""

import time
from typing import Any

from celery import Celery
from celery.signals import task_received, task_revoked, worker_init
from prometheus_client import Counter, Histogram

from reliability import limits, messages, signals

LABELS = ("task", "queue")
OTHER = "(other)"  # the label of what is not registered, or no queue of ours
SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)  # the bounds of both histograms

RECEIVED = Counter("celery_tasks_received_total", "Deliveries that a worker took from the broker.", LABELS)
REDELIVERED = Counter(
    "celery_tasks_redelivered_total", "Deliveries that the broker had given to a worker before.", LABELS
)
STARTED = Counter("celery_tasks_started_total", "Runs that began.", LABELS)
FINISHED = Counter(
    "celery_tasks_finished_total",
    "Runs that ended: succeeded, retried, failed, time_limit, lost, rejected or ignored.",
    (*LABELS, "outcome"),
)
EXPIRED = Counter("celery_tasks_expired_total", "Tasks that nobody ran in time.", LABELS)
REVOKED = Counter("celery_tasks_revoked_total", "Tasks that were revoked or terminated by a person.", LABELS)
DEAD_LETTERED = Counter("celery_dead_letters_total", "Dead letters sent.", (*LABELS, "reason"))
RUN = Histogram(
    "celery_task_run_seconds", "How long a run took that ended by itself.", LABELS, buckets=SECONDS
)
WAIT = Histogram(
    "celery_task_wait_seconds",
    "From sending, or the ETA, to the start of the run.",
    LABELS,
    buckets=SECONDS,
)


class Series:
    """The time series of one task in one queue, found once."""

    __slots__ = ("expired", "finished", "received", "redelivered", "revoked", "run", "started", "wait")

    def __init__(self, task: str, queue: str) -> None:
        labels = (task, queue)
        self.received = RECEIVED.labels(*labels)
        self.redelivered = REDELIVERED.labels(*labels)
        self.started = STARTED.labels(*labels)
        self.expired = EXPIRED.labels(*labels)
        self.revoked = REVOKED.labels(*labels)
        self.run = RUN.labels(*labels)
        self.wait = WAIT.labels(*labels)
        self.finished = {outcome: FINISHED.labels(*labels, outcome) for outcome in signals.OUTCOMES}


class Counting:
    """What the receivers of the signals need."""

    def __init__(self, app: Celery) -> None:
        """Every task begins at zero, so that the first of its failures is an increase."""
        self.app = app
        self.series: dict[tuple[str, str], Series] = {}
        for name, task in app.tasks.items():
            if not name.startswith("celery."):
                self.of(name, limits.queue_of(app, task))

    def of(self, task: str, queue: str) -> Series:
        """Return the series of this task and queue."""
        task = task if task in self.app.tasks else OTHER
        queue = queue if queue in self.app.amqp.queues else OTHER
        key = (task, queue)
        if key not in self.series:
            self.series[key] = Series(*key)
        return self.series[key]

    def of_request(self, request: Any) -> Series:
        """Return the series of a delivery."""
        key = request.delivery_info.get("routing_key")
        found = self.series.get((request.name, key))
        return found or self.of(request.name, messages.queue_name(request.message))

    def on_received(self, request: Any, **_: Any) -> None:
        series = self.of_request(request)
        series.received.inc()
        if request.delivery_info.get("redelivered"):
            series.redelivered.inc()

    def on_started(self, request: Any) -> None:
        series = self.of_request(request)
        series.started.inc()
        seconds = waited(request)
        if seconds is not None:
            series.wait.observe(seconds)

    def on_finished(self, request: Any, outcome: str, seconds: float | None) -> None:
        series = self.of_request(request)
        series.finished[outcome].inc()
        if seconds is None and outcome not in {"lost", "time_limit"} and request.time_start:
            seconds = time.time() - request.time_start  # of a failure, whose process does not tell
        if seconds is not None:
            series.run.observe(seconds)

    def on_revoked(self, request: Any, expired: bool, **_: Any) -> None:
        name = request.name if hasattr(request, "name") else request.task
        series = self.of(name, str((request.delivery_info or {}).get("routing_key")))
        (series.expired if expired else series.revoked).inc()

    def on_expired(self, task: str, queue: str) -> None:
        self.of(task, queue).expired.inc()

    def on_kept(self, task: str, queue: str, reason: str) -> None:
        task = task if task in self.app.tasks else OTHER
        queue = queue if queue in self.app.amqp.queues else OTHER
        DEAD_LETTERED.labels(task, queue, reason).inc()


def waited(request: Any) -> float | None:
    """Return the seconds from sending, or the ETA, to the start; None for senders that do not say when."""
    since = messages.runnable_since(request.request_dict.get("sent_at"), request.request_dict.get("eta"))
    if since is None or request.time_start is None:
        return None
    return max(0.0, float(request.time_start) - since)


def begin(sender: Any, **_: Any) -> None:
    """Count from now on. `sender` is Celery's WorkController."""
    counting = Counting(sender.app)
    task_received.connect(counting.on_received, weak=False)
    task_revoked.connect(counting.on_revoked, weak=False)
    signals.started.connect(counting.on_started)
    signals.finished.connect(counting.on_finished)
    signals.expired.connect(counting.on_expired)
    signals.kept.connect(counting.on_kept)


def connect() -> None:
    """Begin with each worker."""
    worker_init.connect(begin)
