"""What the exporter asks, every few seconds. To add figures: a class with `ask()`, a line in `all_sources`.

`ask()` yields metrics, may raise whatever its server's client raises, and costs as much as there are queues,
never as there are messages.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import structlog
from django.db import connection, connections
from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metrics.certificates import Certificates
# jinja: if cookiecutter.broker == "redis"
from metrics.redis import Broker
# jinja: else
from metrics.rabbitmq import Broker
# jinja: endif
from reliability.models import DeadLetter, Reason, State

logger = structlog.get_logger(__name__)
EVERY = 5  # seconds between two questions to a source
STALE_AFTER = 15  # seconds after which an answer is shown no more


class Source(Protocol):
    """One server, or one kind of figure."""

    name: str

    def ask(self) -> Iterator[Metric]:
        """Yield what it tells now."""


class Database:
    """PostgreSQL's connections, against the limit of the whole server."""

    name = "database"

    def ask(self) -> Iterator[Metric]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*), current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int"
                " FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            used, limit = cursor.fetchone()
        yield gauge("celery_database_connections", "Connections of all clients of the server.", used)
        yield gauge("celery_database_connections_limit", "What the server grants to ordinary users.", limit)


class DeadLetters:
    """The dead letters that wait for a person."""

    name = "dead_letters"

    def ask(self) -> Iterator[Metric]:
        found = GaugeMetricFamily(
            "celery_dead_letters", "Dead letters that nobody has requeued.", labels=["reason"]
        )
        waiting = DeadLetter.objects.filter(state=State.DEAD).order_by()
        counted = dict(waiting.values_list("reason").annotate(Count("pk")))
        for reason in Reason.values:
            found.add_metric([reason], counted.get(reason, 0))
        yield found


class Poll(threading.Thread):
    """Asks one source again and again, so that a scrape waits for no server, and none hides another."""

    def __init__(self, source: Source) -> None:
        super().__init__(name=source.name, daemon=True)
        self.source = source
        self.metrics: list[Metric] = []
        self.seconds = 0.0  # that the last answer took
        self.answered: float | None = None  # when, by the monotonic clock

    def run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                self.metrics = list(self.source.ask())
                self.answered = time.monotonic()
                self.seconds = self.answered - begun
            except Exception as error:  # each client has its own, and this thread must not end
                logger.warning("source_failed", source=self.source.name, error=repr(error))
                connections.close_all()
            time.sleep(EVERY)

    @property
    def is_fresh(self) -> bool:
        """Whether the last answer is not too old to be shown."""
        return self.answered is not None and time.monotonic() - self.answered < STALE_AFTER


class Exporter(Collector):
    """Shows the last answers."""

    def __init__(self, sources: list[Source]) -> None:
        self.polls = [Poll(source) for source in sources]
        for poll in self.polls:
            poll.start()

    def describe(self) -> list[Metric]:
        """Show nothing when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        answers = GaugeMetricFamily("celery_source_up", "1 while it answers, else 0.", labels=["source"])
        seconds = GaugeMetricFamily("celery_source_seconds", "How long asking took.", labels=["source"])
        for poll in self.polls:
            answers.add_metric([poll.source.name], poll.is_fresh)
            seconds.add_metric([poll.source.name], poll.seconds)
            if poll.is_fresh:
                yield from poll.metrics
        yield from (answers, seconds)


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a metric without labels."""
    return GaugeMetricFamily(name, text, value=value)


def all_sources() -> list[Source]:
    """Return what the exporter asks."""
    found: list[Any] = [Broker(), Database(), DeadLetters(), Certificates()]
    return found
