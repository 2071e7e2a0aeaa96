"""The broker went away: wait for it, and lose nothing that runs meanwhile.

Celery tries again after 2, 4, ... 30 s, and so idles for half a minute after the broker is back; here it asks
every few seconds, each process at times of its own.

A restart of Redis interrupts nothing: what runs is acknowledged over the next connection. When one breaks,
kombu wants to give back all that its worker holds, running or not. Where the worker waited for one more
message just then, kombu fails at that, and Celery ends the worker (both 5.7).
"""

import random
from collections.abc import Callable
from typing import Any

from celery.worker import state
from kombu import Connection
from kombu.message import Message
from kombu.transport import virtual

from reliability.conf import enabled

LONGEST_PAUSE = 4.0  # seconds between two attempts to reach the broker, and up to a half more


def patient(connection: Connection, while_waiting: Callable[[], None]) -> Connection:
    """Have this connection wait for its broker with short pauses; each second `while_waiting` is called."""
    opened: Any = connection
    wait: Callable[..., Any] = opened._ensure_connection

    def ensure_connection(*args: Any, callback: Callable[[], None] | None = None, **options: Any) -> Any:
        def still_here() -> None:
            while_waiting()
            if callback:
                callback()

        if enabled("reconnect"):
            pause = 1 + random.random() / 2  # noqa: S311  # no secret
            options |= {
                "interval_start": pause,
                "interval_step": pause,
                "interval_max": LONGEST_PAUSE * pause,
            }
        return wait(*args[:2], callback=still_here, **options)

    opened._ensure_connection = ensure_connection
    return connection


def hasty(connection: Connection) -> Connection:
    """Have this connection, should it break, be opened again by one attempt at each use, and not wait.

    The event that says that a worker is there is sent from the event loop. Celery has it wait there for the
    broker, and RabbitMQ's heartbeats, which tell that a connection is dead, are not looked at meanwhile. Only
    those of the connection that brings the tasks count: when it is given up, RabbitMQ gives them to others.
    """
    opened: Any = connection
    wait: Callable[..., Any] = opened._ensure_connection
    check: Callable[..., Any] = opened.heartbeat_check

    def ensure_connection(*args: Any, **options: Any) -> Any:
        return wait(*args[:1], **{**options, "max_retries": 0})

    def heartbeat_check(*args: Any, **options: Any) -> Any:
        return check(*args, **options) if connection.connected else None

    if enabled("reconnect"):
        opened._ensure_connection, opened.heartbeat_check = ensure_connection, heartbeat_check
    return connection


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
