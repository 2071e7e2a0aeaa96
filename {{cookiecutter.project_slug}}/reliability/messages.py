"""Where a message came from, and how to put it back as it was."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.message import Message
from kombu.transport.native_delayed_delivery import calculate_routing_key

_DELAYED = re.compile(r"^(?:[01]\.){28}")  # what RabbitMQ's delayed delivery puts before a routing key
_OF_RABBITMQ = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")


def headers(message: Message) -> dict[str, Any]:
    """Return the message's headers, empty when they are no mapping."""
    return dict(message.headers) if isinstance(message.headers, Mapping) else {}


def kept_headers(message: Message) -> dict[str, Any]:
    """Return the headers that a copy needs: its body is not compressed, and RabbitMQ has not moved it."""
    return {
        name: found
        for name, found in headers(message).items()
        if name != "compression" and not str(name).startswith(_OF_RABBITMQ)
    }


def body(message: Message) -> bytes:
    """Return the message's body as it was on the wire; py-amqp may have decoded it."""
    if isinstance(message.body, bytes):
        return message.body
    text = str(message.body or "")
    try:
        return text.encode(message.content_encoding or "utf-8")
    except (LookupError, TypeError, ValueError):  # no such encoding, or none at all
        return text.encode(errors="replace")


def header_text(message: Message, name: str) -> str:
    """Return a header that should be a text, in Celery's first protocol from the body; or nothing."""
    found = headers(message).get(name)
    if found is None and "task" not in headers(message):
        try:
            found = json.loads(body(message)).get(name)
        except (ValueError, AttributeError, RecursionError):
            return ""
    return found if isinstance(found, str) else ""


def queue_name(message: Message) -> str:
    """Return the queue that the message was sent to. Queues of Celery are named as their routing keys are."""
    deaths = headers(message).get("x-death")
    for death in deaths if isinstance(deaths, list) else []:
        if isinstance(death, Mapping) and death.get("reason") == "delivery_limit":
            return str(death.get("queue"))
    info = message.delivery_info if isinstance(message.delivery_info, Mapping) else {}
    return _DELAYED.sub("", str(info.get("routing_key") or ""))


def expired_in(message: Message) -> str:
    """Return the queue out of which RabbitMQ took the message because its time was over; empty for none."""
    deaths = headers(message).get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else {}
    expired = isinstance(last, Mapping) and last.get("reason") == "expired"
    return str(last.get("queue")) if expired else ""


def runnable_since(sent_at: Any, eta: Any) -> float | None:
    """Return since when a message could run, seconds since 1970: its sending or, if later, its ETA.

    Both as headers tell them, in ISO 8601. None when they do not say.
    """
    try:
        return max((_seconds(str(text)) for text in (sent_at, eta) if text), default=None)
    except ValueError:
        return None


def _seconds(text: str) -> float:
    """Return a moment in ISO 8601 as seconds since 1970; one without a time zone is of UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def queue_of(app: Celery, key: str) -> Queue:
    """Return the queue that has this routing key, mostly as its name. KeyError when there is none."""
    queues = app.amqp.queues
    by_key = {queue.routing_key: queue for queue in queues.values()}
    return queues[key] if key in queues or key not in by_key else by_key[key]


def deliveries(message: Message) -> int:
    """Return how often the message was delivered, as far as known: RabbitMQ's quorum queues count."""
    counted = headers(message).get("x-delivery-count")
    if isinstance(counted, int):
        return counted + 1
    info = message.delivery_info if isinstance(message.delivery_info, Mapping) else {}
    return 2 if info.get("redelivered") else 1


def send_again(app: Celery, message: Message, changed: Mapping[str, Any], *, delay: int = 0) -> None:
    """Publish a copy of the message to its queue, with `changed` headers; on RabbitMQ after `delay` seconds.

    Raises kombu.exceptions.OperationalError when the broker cannot take it.
    """
    queue = queue_of(app, queue_name(message))
    # Not by the queue's exchange: that may lead to other queues too.
    exchange, routing_key = Exchange(""), queue.name
    if delay:
        exchange = Exchange("celery_delayed_27", type="topic")
        routing_key = calculate_routing_key(delay, queue.routing_key)
    properties = message.properties or {}
    with app.producer_or_acquire() as producer:
        producer.publish(
            body(message),
            exchange=exchange,
            routing_key=routing_key,
            declare=[] if delay else [queue],
            headers={**kept_headers(message), **changed},
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            priority=properties.get("priority"),
            correlation_id=properties.get("correlation_id"),
            reply_to=properties.get("reply_to"),
            delivery_mode=2,
            mandatory=bool(app.conf.broker_transport_options.get("confirm_publish")),  # never into the void
            retry=True,
            retry_policy=app.conf.task_publish_retry_policy,
        )
