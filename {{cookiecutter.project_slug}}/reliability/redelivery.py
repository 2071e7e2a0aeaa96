"""A task or signature that this worker does not know waits for a worker that does: a deploy is on its way."""

import random
import time
from typing import Any

from celery.utils.log import get_logger
from celery.utils.quorum_queues import detect_quorum_queues
from kombu.exceptions import OperationalError
from kombu.message import Message

from reliability import messages
from reliability.conf import enabled, value

logger = get_logger(__name__)
PAUSE = 5  # seconds between two deliveries
SINCE = "unknown_since"  # the header that says when the first worker did not know it; seconds since 1970


def try_again(consumer: Any, message: Message, problem: str) -> bool:
    """Send the message again in PAUSE seconds and return True; False when it has waited long enough."""
    if not enabled("unknown_tasks"):
        return False
    try:
        broker_delays = _broker_delays(consumer, message)
    except KeyError:  # no queue has this routing key: which one it came from cannot be told
        return False
    now, since = time.time(), messages.headers(message).get(SINCE)
    if not isinstance(since, int | float) or not since <= now:  # NaN and what is to come are malformed
        since = now
    if now - since >= value("unknown_task_patience"):
        return False
    logger.warning("%s; %s waits for a worker that knows it", problem, messages.header_text(message, "id"))
    if broker_delays:
        _send(consumer, message, since, delay=PAUSE)  # the broker holds it
    else:
        # This worker holds it, beside what it may prefetch. Workers ask Redis anew each second, and who has
        # asked first gets the message: an odd pause gives the others their turn.
        consumer.qos.increment_eventually()
        pause = PAUSE + random.random()  # noqa: S311  # no secret
        timer = consumer.timer.call_after(pause, _send_and_free, (consumer, message, since))
        consumer.pauses[message.delivery_tag] = timer
    return True


def forget(consumer: Any) -> None:
    """The connection broke, and what waits here goes back to its queue: send no copies of it."""
    for timer in consumer.pauses.values():
        timer.cancel()
    consumer.pauses.clear()


def _broker_delays(consumer: Any, message: Message) -> bool:
    """Return whether the broker itself delays what is in this queue: RabbitMQ, where Celery set that up."""
    app, driver = consumer.app, consumer.connection.transport.driver_type
    queue = messages.queue_of(app, messages.queue_name(message))
    return detect_quorum_queues(app, driver)[0] and queue.exchange.type != "direct"


def _send_and_free(consumer: Any, message: Message, since: float) -> None:
    del consumer.pauses[message.delivery_tag]
    consumer.qos.decrement_eventually()
    _send(consumer, message, since)


def _send(consumer: Any, message: Message, since: float, delay: int = 0) -> None:
    """Publish the copy, then acknowledge: between the two there are two messages, never none."""
    try:
        messages.send_again(consumer.app, message, {SINCE: since}, delay=delay)
    except OperationalError:
        logger.critical("Could not send %s again", messages.header_text(message, "id"), exc_info=True)
        message.reject_log_error(logger, consumer.connection_errors, requeue=True)
    else:
        message.ack_log_error(logger, consumer.connection_errors)
