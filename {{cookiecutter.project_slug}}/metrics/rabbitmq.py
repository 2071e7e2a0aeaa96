"""What RabbitMQ tells over AMQP, and how old the next message is, by canaries.

RabbitMQ does not say how old a message is, and to fetch one in order to look would count against its
delivery limit. So the exporter sends a canary to each queue: a task that only takes itself off. While one is
under way, its age is the age of the queue. What RabbitMQ counts itself, such as unacknowledged messages by
queue and alarms, its own plugin rabbitmq_prometheus tells Prometheus: monitoring/prometheus.yaml.
"""

import time
from collections.abc import Iterator
from typing import Any

from amqp.exceptions import NotFound
from celery.app import app_or_default
from django.core.cache import cache
from kombu import Connection
from prometheus_client.core import GaugeMetricFamily, Metric

from metrics.tasks import canary, sent_key, since_key
from reliability.limits import REJECTED

LOST = 120  # seconds after which another canary is sent, in case the first was lost


class Broker:
    """The broker, by a connection that is kept between scrapes."""

    name = "broker"

    def __init__(self) -> None:
        self.app = app_or_default()
        self.connection: Connection | None = None

    def ask(self) -> Iterator[Metric]:
        if self.connection is None:
            self.connection = self.app.connection_for_read()
        try:
            yield from self._queues(self.connection)
        except Exception:
            self.connection.collect(socket_timeout=1)
            self.connection = None
            raise
        yield self._ages()

    def _queues(self, opened: Connection) -> Iterator[Metric]:
        ready = GaugeMetricFamily(
            "celery_queue_messages", "Messages that wait for a worker.", labels=["queue"]
        )
        consumers = GaugeMetricFamily(
            "celery_queue_consumers",
            "Workers that take tasks from the queue, as RabbitMQ counts.",
            labels=["queue"],
        )
        for queue in self.app.amqp.queues:
            channel: Any = opened.channel()  # its own, since RabbitMQ closes it for a queue that is not there
            try:
                declared = channel.queue_declare(queue, passive=True)
                counted = declared.message_count, declared.consumer_count
                channel.close()
            except NotFound:  # no worker has ever made it
                counted = 0, 0
            ready.add_metric([queue], counted[0])
            consumers.add_metric([queue], counted[1])
        yield from (ready, consumers)

    def _ages(self) -> Metric:
        """Return the age of each queue's canary, and send one where none is under way."""
        age = GaugeMetricFamily(
            "celery_queue_oldest_message_age_seconds",
            "For how long a task sent to the queue has been waiting; source: canary.",
            labels=["queue", "source"],
        )
        now = time.time()
        for queue in self.app.amqp.queues:
            if queue == REJECTED:
                continue
            since = cache.get(since_key(queue))
            age.add_metric([queue, "canary"], max(0.0, now - since) if since else 0.0)
            # Several exporters may run: only one of them gets to add the key.
            if cache.add(sent_key(queue), now, timeout=LOST):
                cache.add(since_key(queue), now, timeout=None)
                canary.apply_async((queue,), queue=queue)
        return age
