"""Each worker, beat and exporter reports its figures to the cache's server, where the status page reads them.

They are the figures that Prometheus gets. A thread of its own reports, so that a cache that is away or
does not answer is no concern of the process; the page then says that it cannot know.
"""

import atexit
import json
import socket
import threading
from contextlib import suppress
from typing import Any

import structlog
from celery.signals import beat_init, worker_init
from django.conf import settings
from prometheus_client import REGISTRY

from health.server import PORTS

logger = structlog.get_logger(__name__)
EVERY = 5  # seconds between two reports
SAMPLE_EVERY = 60  # seconds between two samples of the past
SAMPLES = 60  # that are kept: an hour
FORGOTTEN_AFTER = 600  # seconds; of a process that was killed, and may have a successor of another name

PROCESSES = "status:processes"  # a sorted set: the names of processes, by the time of their last report

Figures = dict[str, list[tuple[dict[str, str], float]]]

# What is reported, with the labels that are kept; over all others it is summed up.
FIGURES: dict[str, tuple[str, ...]] = {
    "process_start_time_seconds": (),
    "celery_worker_live": (),
    "celery_worker_deaf": (),
    "celery_worker_consuming": ("queue",),
    "celery_worker_concurrency": (),
    "celery_worker_running_tasks": (),
    "celery_worker_held_messages": (),
    "celery_worker_memory_bytes": (),
    "celery_task_oldest_run_seconds": ("task", "queue"),
    "celery_tasks_finished_total": (),
    "celery_beat_tick_age_seconds": (),
    "celery_beat_entry_late_seconds": ("entry",),
    "celery_beat_entry_last_sent_timestamp_seconds": ("entry",),
    "celery_beat_send_failures_total": ("entry",),
    "celery_source_up": ("source",),
    "celery_queue_messages": ("queue",),
    "celery_queue_oldest_message_age_seconds": ("queue",),
    "celery_unacked_messages": (),
    "celery_oldest_unacked_age_seconds": (),
}
PLOTTED = ("celery_queue_messages", "celery_queue_oldest_message_age_seconds", "celery_tasks_finished_total")


def now_key(process: str) -> str:
    """Return the key of a process's last report."""
    return f"status:now:{process}"


def past_key(process: str) -> str:
    """Return the key of a process's samples, the newest first.

    Exporters tell the same of queues, so that all that ever ran share their past.
    """
    return "status:past:exporter" if process.startswith("exporter ") else f"status:past:{process}"


def connect_to_cache() -> Any:
    """Return a client of the cache's server, which gives up within two seconds."""
    # Not above: it takes a third of a second, and Django starts in many a process that never reports.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        str(settings.CACHES["default"]["LOCATION"]),
        socket_connect_timeout=1,
        socket_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )


def clock(client: Any) -> float:
    """Return the time by the cache's clock, in seconds since 1970."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1_000_000)


def figures() -> Figures:
    """Return the FIGURES that this process has."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name in FIGURES:
                series = found.setdefault(sample.name, {})
                labels = tuple(sample.labels[label] for label in FIGURES[sample.name])
                series[labels] = series.get(labels, 0.0) + sample.value
    return {
        name: [(dict(zip(FIGURES[name], labels, strict=True)), value) for labels, value in series.items()]
        for name, series in found.items()
    }


class Reporter(threading.Thread):
    """Reports for one process, for as long as it runs."""

    def __init__(self, role: str, host: str) -> None:
        """`role` is a key of health.server.PORTS; two processes of a host differ by their ports."""
        super().__init__(name="status", daemon=True)
        self.process = f"{role} {host}:{settings.METRICS_PORT or PORTS[role]}"
        self.client = connect_to_cache()
        self.ended = threading.Event()
        self.heard = False  # whether the last report has arrived

    def run(self) -> None:
        atexit.register(self.leave)
        while not self.ended.is_set():
            try:
                self.report()
                self.heard = True
            except Exception as error:  # of the cache, or of a collector; and this thread must not end
                self.heard = False
                logger.debug("status_not_reported", error=repr(error))
            self.ended.wait(EVERY)

    def report(self) -> None:
        """Tell what is, and now and then keep a sample of it; forget processes that are long gone.

        All times are the cache's: the clocks of hosts differ.
        """
        now, told = clock(self.client), figures()
        plotted = {name: told[name] for name in PLOTTED if name in told}
        past = past_key(self.process)
        is_sampled = plotted and self.client.set(f"{past}:sampled", 1, nx=True, ex=SAMPLE_EVERY)
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.set(now_key(self.process), json.dumps(told), ex=FORGOTTEN_AFTER)
            pipeline.zadd(PROCESSES, {self.process: now})
            pipeline.zremrangebyscore(PROCESSES, 0, now - FORGOTTEN_AFTER)
            if is_sampled:
                pipeline.lpush(past, json.dumps({"at": now, "figures": plotted}))
                pipeline.ltrim(past, 0, SAMPLES - 1)
                pipeline.expire(past, SAMPLE_EVERY * SAMPLES)
            pipeline.execute()

    def leave(self) -> None:
        """Say goodbye, so that nobody misses a process that ends in order."""
        self.ended.set()
        self.join(2)
        if self.heard:  # else the cache is away, and would hold up the end
            with suppress(Exception):
                self.client.zrem(PROCESSES, self.process)


def begin(role: str, host: str = "") -> None:
    """Report from now on, to the end of this process."""
    Reporter(role, host or socket.gethostname()).start()


def begin_with_worker(sender: Any, **_: Any) -> None:
    """Report for a worker, by the name of its node. `sender` is Celery's WorkController."""
    begin("worker", sender.hostname)


def begin_with_beat(**_: Any) -> None:
    """Report for a beat."""
    begin("beat")


def connect() -> None:
    """Begin with each worker and each beat."""
    worker_init.connect(begin_with_worker)
    beat_init.connect(begin_with_beat)
