"""What beat has done with each entry of the schedule."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from celery.signals import beat_init
from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reliability import pulse

SENT = Counter("celery_beat_sent_total", "Tasks that beat sent.", ["entry"])
FAILED = Counter("celery_beat_send_failures_total", "Tasks that beat could not send.", ["entry"])


class Beat(Collector):
    """One beat's schedule, as it was after the last tick.

    Only beat's own thread may read it: it is a database that another thread must not open.
    """

    def __init__(self, scheduler: Any) -> None:
        """`scheduler` is Celery's; looks at it after each tick from now on."""
        self.scheduler = scheduler
        self.due: dict[str, float] = {}  # when each entry is next due, seconds since 1970
        self.last: dict[str, float] = {}  # when it was last sent
        tick, send = scheduler.tick, scheduler.apply_async

        def noted_tick() -> Any:
            pause = tick()
            self.look()
            return pause

        def noted_send(entry: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                result = send(entry, *args, **kwargs)
            except Exception:
                FAILED.labels(entry.name).inc()
                raise
            SENT.labels(entry.name).inc()
            return result

        scheduler.tick, scheduler.apply_async = noted_tick, noted_send

    def describe(self) -> list[Metric]:
        """Say nothing before there is a schedule to ask."""
        return []

    def look(self) -> None:
        """Note when each entry was last sent and is next due."""
        now = time.time()
        due, last = {}, {}
        for name, entry in self.scheduler.schedule.items():
            for counter in (SENT, FAILED):  # they begin at zero, so that the first failure is an increase
                counter.labels(name)
            if isinstance(entry.last_run_at, datetime):  # before its first time, when beat began
                if entry.total_run_count:
                    last[name] = entry.last_run_at.timestamp()
                due[name] = now + entry.schedule.remaining_estimate(entry.last_run_at).total_seconds()
        self.due, self.last = due, last

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("celery_beat_tick_age_seconds", "Since the last tick.", value=pulse.age())
        late = GaugeMetricFamily(
            "celery_beat_entry_late_seconds", "How long the entry has been due, else 0.", labels=["entry"]
        )
        last = GaugeMetricFamily(
            "celery_beat_entry_last_sent_timestamp_seconds",
            "When the entry was last sent, if ever.",
            labels=["entry"],
        )
        now = time.time()
        for name, moment in self.due.items():
            late.add_metric([name], max(0.0, now - moment))
        for name, moment in self.last.items():
            last.add_metric([name], moment)
        yield from (late, last)


def begin(sender: Any, **_: Any) -> None:
    """Look at this beat from now on."""
    REGISTRY.register(Beat(sender.scheduler))


def connect() -> None:
    """Begin with each beat."""
    beat_init.connect(begin)
