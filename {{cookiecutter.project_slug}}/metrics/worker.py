"""What a worker does at the moment of the scrape: what runs, what it holds, its processes, its connection."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery.signals import worker_init
from celery.worker import state
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from health.worker import Health, now_in
from reliability import messages, pulse

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class Worker(Collector):
    """One worker's state. Reads what the main thread writes; a number may be one delivery old."""

    def __init__(self, worker: Any) -> None:
        """`worker` is Celery's WorkController."""
        self.worker = worker

    def describe(self) -> list[Metric]:
        """Say nothing before there is a worker to ask."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._tasks()
        yield from self._pool()
        yield _gauge("celery_worker_loop_age_seconds", "Since the event loop last turned.", pulse.age())
        health: Health | None = getattr(self.worker, "health", None)
        if health:
            watch = health.watch
            live = health.livez().status == 200
            yield _gauge("celery_worker_live", "1 while the liveness probe succeeds, else 0.", live)
            consuming = GaugeMetricFamily(
                "celery_worker_consuming",
                "1 while the worker takes tasks from the queue, else 0.",
                labels=["queue"],
            )
            for queue, taken in watch.queues.items():
                consuming.add_metric([queue], float(taken and watch.takes_tasks))
            yield consuming
            yield _gauge("celery_worker_deaf", "1 when messages wait and none comes, else 0.", watch.is_deaf)

    def _tasks(self) -> Iterator[Metric]:
        now = time.time()
        running = now_in(state.active_requests)
        held = [request for request in now_in(state.reserved_requests) if request not in running]
        waiting: Any = state  # the stubs lack it
        eta = waiting.scheduled_requests
        consumer = getattr(self.worker, "consumer", None)
        aside = consumer.set_aside() if consumer else 0
        yield _gauge("celery_worker_running_tasks", "Tasks that run.", len(running))
        yield _gauge("celery_worker_prefetched_tasks", "Tasks that wait in the worker.", len(held))
        yield _gauge("celery_worker_eta_tasks", "Tasks that the worker holds until their ETA.", len(eta))
        yield _gauge(
            "celery_worker_held_messages",
            "All messages that the worker holds, also those that wait for a newer one or a rate limit.",
            len(running) + len(held) + len(eta) + aside,
        )
        yield _gauge("celery_worker_concurrency", "Tasks that can run at once.", self.worker.concurrency)
        oldest = GaugeMetricFamily(
            "celery_task_oldest_run_seconds", "The age of the longest run.", labels=["task", "queue"]
        )
        used = GaugeMetricFamily(
            "celery_task_limit_used_ratio",
            "Of the runs, the largest share of its hard time limit that one has used.",
            labels=["task", "queue"],
        )
        ages: dict[tuple[str, str], tuple[float, float]] = {}
        for request in running:
            key = (request.name, messages.queue_name(request.message))
            age = now - (request.time_start or now)
            limit = request.time_limits[0] or request.task.time_limit
            before = ages.get(key, (0.0, 0.0))
            ages[key] = max(before[0], age), max(before[1], age / limit if limit else 0)
        for key, (age, ratio) in ages.items():
            oldest.add_metric(key, age)
            used.add_metric(key, ratio)
        yield from (oldest, used)

    def _pool(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "celery_worker_memory_bytes", "Resident memory, shared pages in each.", labels=["process"]
        )
        memory.add_metric(["main"], _resident(os.getpid()))
        processes = _processes(self.worker)
        if processes:
            memory.add_metric(["pool"], sum(_resident(process.pid) for process in processes))
            begun = max(int(process.name.rpartition("-")[2]) for process in processes)
            yield _gauge("celery_worker_pool_processes", "Processes of the pool.", len(processes))
            yield CounterMetricFamily(
                "celery_worker_pool_processes_started",
                "Processes that the pool has started, the first ones too.",
                value=begun,
            )
        yield memory


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _processes(worker: Any) -> list[Any]:
    """Return the processes of a prefork pool; none of other pools, or before it has begun."""
    pool = getattr(worker.pool, "_pool", None)
    return [process for process in tuple(getattr(pool, "_pool", ())) if hasattr(process, "pid")]


def _resident(pid: int) -> int:
    """Return the bytes that a process has in memory; 0 when it is gone, or where /proc is missing."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_SIZE
    except OSError:
        return 0


def begin(sender: Any, **_: Any) -> None:
    """Show this worker's state from now on."""
    REGISTRY.register(Worker(sender))


def connect() -> None:
    """Begin with each worker."""
    worker_init.connect(begin)
