"""Speed: what the other promises cost a worker's main process is won back elsewhere in it.

Redis: kombu (5.7) makes a new client for each message that it notes, and one for each that it acknowledges;
here one serves the connection. RabbitMQ: a quorum queue writes each acknowledgement to disk, and sends more
only then; here one stands for all that follow each other within some milliseconds.
"""

from importlib.util import find_spec
from typing import Any

from amqp import Channel
from celery.signals import celeryd_init
from celery.utils.log import get_logger

from reliability.conf import enabled

logger = get_logger(__name__)
WAIT = 0.003  # seconds that an acknowledgement waits for others


class Acknowledgements:
    """Those of one channel of RabbitMQ. What a worker that is killed has not acknowledged yet runs again.

    RabbitMQ numbers what it delivers over a channel from 1, and takes one acknowledgement for all messages up
    to a number. That is sent where none of them is still at work.
    """

    def __init__(self, consumer: Any, channel: Any) -> None:
        """As many are sent together as the worker may hold: with these it gets no further message."""
        self.channel, self.hub, self.most = channel, consumer.hub, consumer.initial_prefetch_count
        self.errors = (*consumer.connection_errors, *consumer.channel_errors)
        self.acknowledge, self.reject = channel.basic_ack, channel.basic_reject
        self.waiting: list[int] = []
        self.last = 0  # the highest number that was answered
        self.gaps: set[int] = set()  # those below it that were not
        channel.basic_ack, channel.basic_reject = self.add, self.refuse

    def answered(self, tag: int) -> None:
        """Note that the worker is done with this message."""
        self.gaps.update(range(self.last + 1, tag))
        self.gaps.discard(tag)
        self.last = max(self.last, tag)

    def add(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge this message soon. Nobody here acknowledges `multiple`."""
        self.answered(delivery_tag)
        if not self.waiting:
            self.hub.call_later(WAIT, self.send)
        self.waiting.append(delivery_tag)
        if len(self.waiting) >= self.most:
            self.send()

    def refuse(self, delivery_tag: int, requeue: bool) -> None:
        """Give this message back, or drop it, at once."""
        self.answered(delivery_tag)
        self.reject(delivery_tag, requeue=requeue)

    def send(self) -> None:
        """Acknowledge what waits. When the connection is lost RabbitMQ gives it to a worker once more."""
        tags, self.waiting = sorted(self.waiting), []
        first_at_work = min(self.gaps, default=self.last + 1)
        together = [tag for tag in tags if tag < first_at_work]
        try:
            if together:
                self.acknowledge(together[-1], multiple=True)
            for tag in tags[len(together) :]:
                self.acknowledge(tag)
        except self.errors as error:
            logger.critical("Could not acknowledge %d tasks, they will run again: %r", len(tags), error)

    def end(self) -> None:
        """From now on acknowledge at once: the event loop is about to stop."""
        self.channel.basic_ack, self.channel.basic_reject = self.acknowledge, self.reject
        self.send()


def together(consumer: Any) -> Acknowledgements | None:
    """Gather the acknowledgements of the worker's connection; None where that gains nothing."""
    channel = consumer.task_consumer.channel
    if enabled("throughput") and consumer.hub is not None and isinstance(channel, Channel):
        return Acknowledgements(consumer, channel)
    return None


def keep_clients(**_: Any) -> None:
    """Have kombu's transport for Redis make one client for all that it says over a connection."""
    if not enabled("throughput") or not find_spec("redis"):
        return
    from kombu.transport import redis

    channels: Any = redis.Channel  # the stubs know less than the class has
    create = channels._create_client

    def client_of(channel: Any, asynchronous: bool = False) -> Any:
        if asynchronous:
            return create(channel, asynchronous=True)
        kept = vars(channel).get("kept_client")
        if kept is None or kept.connection_pool is not channel.pool:  # a new pool comes with a new connection
            kept = channel.kept_client = create(channel)
        return kept

    channels._create_client = client_of


def connect() -> None:
    """Begin when a worker starts, before it connects."""
    celeryd_init.connect(keep_clients)
