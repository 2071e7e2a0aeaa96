"""A restart of Redis interrupts nothing: what runs is acknowledged over the next connection.

When the connection breaks, kombu wants to give back all that its worker holds, running or not. Where the
worker waited for one more message just then, kombu fails at that, and Celery ends the worker (both 5.7).
"""

from typing import Any

from celery.worker import state
from kombu.message import Message
from kombu.transport import virtual


def leave(consumer: Any) -> dict[str, Message]:
    """Keep kombu from giving anything back; return what the broken connection held, by delivery tag."""
    channel = consumer.channel if consumer else None
    if not isinstance(channel, virtual.Channel):  # RabbitMQ gives it back itself
        return {}
    channel.do_restore = False
    qos: Any = channel.qos
    qos._flush()
    return dict(qos._delivered)


def take_over(consumer: Any, left: dict[str, Message]) -> None:
    """Hold on to what still runs, over the new connection; put the rest back, which nobody would run.

    Each is taken out of `left` when that is done: the new connection may break, too.
    """
    running = {id(request.message) for request in state.active_requests}
    for tag, message in list(left.items()):
        if id(message) in running:
            message.channel = consumer.channel
            consumer.channel.qos.append(message, tag)
        else:
            consumer.channel.qos.restore_by_tag(tag, leftmost=True)
        del left[tag]
