"""Does the broker keep what it is given? Workers and beat ask when they start, and `check --deploy`.

An error ends the worker or beat, with a line in its log. What cannot be told is only warned about: a
broker that is away, since a worker may start first (it looks again once it is connected), and one that
answers no such questions, as a managed Redis does. SILENCED_SYSTEM_CHECKS silences a rule by its id.
"""

import os
import re
import ssl
from collections.abc import Iterator
from logging import getLogger
from typing import Any

from celery import Celery
from celery.app import app_or_default
from celery.signals import beat_init, celeryd_after_setup, worker_ready
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from kombu import Connection, Queue
from kombu.exceptions import OperationalError
from kombu.utils.text import version_string_as_tuple

from reliability.conf import enabled

PATIENCE = 2  # seconds for each answer: a frozen server delays a start and does not stop it
REDIS = {"socket_connect_timeout": PATIENCE, "socket_timeout": PATIENCE}
AMQP = {"read_timeout": PATIENCE}
NOT_FOUND, PRECONDITION_FAILED = 404, 406  # in AMQP
AWAY = "reliability.W025"

logger = getLogger(__name__)


@register("broker", deploy=True)
def check_broker(**_: Any) -> list[CheckMessage]:
    """Look at the project's broker: a deploy check, since tests and migrations need no broker."""
    return examine(app_or_default()) if enabled("check_broker") else []


def connect() -> None:
    """Look when a worker or beat starts: its logging is set up, and it has consumed and sent nothing yet."""
    celeryd_after_setup.connect(look)
    beat_init.connect(look)


def look(sender: Any, instance: Any = None, **_: Any) -> None:
    """Log what is wrong; SystemExit with status 1 when it is an error."""
    worker_ready.disconnect(look)
    if not enabled("check_broker"):
        return
    messages = [message for message in examine((instance or sender).app) if not message.is_silenced()]
    for message in messages:
        logger.log(message.level, "%s: %s %s", message.id, message.msg, message.hint)
    if any(message.is_serious() for message in messages):
        raise SystemExit(1)
    if any(message.id == AWAY for message in messages):
        worker_ready.connect(look)


def examine(app: Celery) -> list[CheckMessage]:
    """Return what is wrong with the broker of `app`. One that need not prove who it is hears nothing."""
    with app.connection_for_read(connect_timeout=PATIENCE, transport_options=REDIS | AMQP) as connection:
        rules = {"redis": _redis, "amqp": _rabbitmq}.get(connection.transport.driver_type)
        if rules is None:
            return []
        broker = f"The broker {connection.as_uri()}"  # its password is masked
        messages = list(_tls(connection, broker))
        if any(message.is_serious() and not message.is_silenced() for message in messages):
            return messages
        errors: Any = (*connection.connection_errors, *connection.channel_errors)
        try:
            connection.ensure_connection(max_retries=0)
            messages += rules(connection, app, broker)
        except (OperationalError, OSError, *errors) as error:
            text = f"{broker} does not answer, so this check cannot tell whether it keeps tasks: {error}."
            messages.append(Warning(text, "A worker looks again once it is connected.", id=AWAY))
    return messages


def _tls(connection: Connection, broker: str) -> Iterator[CheckMessage]:
    """Look at what became of URL and `broker_use_ssl`, beside the defaults of redis-py and py-amqp."""
    options: dict[str, Any] = connection.ssl if isinstance(connection.ssl, dict) else {}
    if connection.transport.driver_type == "redis":
        required = options.get("ssl_cert_reqs", ssl.CERT_REQUIRED)
        named = options.get("ssl_check_hostname", True)
    else:
        required = options.get("cert_reqs", ssl.CERT_REQUIRED)
        named = "server_hostname" in options or (options.get("context") or {}).get("check_hostname")
    if not connection.ssl or (required in (ssl.CERT_REQUIRED, "required") and named):
        return
    text = f"{broker} need not show a certificate for its name: who sits between reads and sends tasks."
    if os.environ.get("BROKER_TLS_VERIFY") == "off":
        yield Warning(text, "BROKER_TLS_VERIFY=off allows it.", id="reliability.W022")
    else:
        hint = "Have it verified, by broker_use_ssl or the URL; BROKER_TLS_VERIFY=off would allow it."
        yield Error(text, hint, id="reliability.E022")


def _redis(connection: Connection, _: Celery, broker: str) -> Iterator[CheckMessage]:
    from redis.exceptions import ResponseError  # here, since RabbitMQ needs no redis

    channel: Any = connection.default_channel
    info = _info(channel.client)
    try:
        policy = channel.client.config_get("maxmemory-policy")["maxmemory-policy"]
        disk = channel.client.config_get("append*") | channel.client.config_get("save")
        yield from _eviction(policy, broker)
        yield from _persistence(disk["appendonly"], disk["appendfsync"], disk["save"], broker)
    except (ResponseError, KeyError) as error:
        text = f"{broker} answers no CONFIG GET, so this check cannot tell whether it keeps tasks: {error}."
        hint = "It needs appendonly yes and maxmemory-policy noeviction; by INFO the policy is {}."
        yield Warning(text, hint.format(info.get("maxmemory_policy", "unknown")), id="reliability.W026")
    if not settings.DEBUG:  # where nothing is at stake one server will do
        yield from _sharing(info, broker)


def _info(client: Any) -> dict[str, Any]:
    """Return what a server says about itself: nothing when it is away or may not be asked."""
    from redis.exceptions import RedisError

    try:
        return dict(client.info())
    except (RedisError, OSError):
        return {}


def _eviction(policy: str, broker: str) -> Iterator[CheckMessage]:
    """Queues never expire, so volatile-* spares them, but not the locks and results beside them."""
    text = f"{broker} has maxmemory-policy {policy}: when its memory is full it drops"
    if policy.startswith("volatile-"):
        yield Warning(f"{text} locks and results.", "Set noeviction.", id="reliability.W020")
    elif policy != "noeviction":
        yield Error(f"{text} waiting tasks, without a word.", "Set noeviction.", id="reliability.E020")


def _persistence(appendonly: str, appendfsync: str, save: str, broker: str) -> Iterator[CheckMessage]:
    lost = None
    if appendonly != "yes":
        lost = "a crash loses what came after the last snapshot" if save else "a restart loses every task"
    elif appendfsync == "no":
        lost = "a power cut loses what the system had not written yet, half a minute or so"
    if lost:
        text = f"{broker} has appendonly {appendonly}, appendfsync {appendfsync}, save '{save}': {lost}."
        yield Warning(text, "Set appendonly yes and appendfsync everysec.", id="reliability.W024")


def _sharing(info: dict[str, Any], broker: str) -> Iterator[CheckMessage]:
    """Compare what the servers call themselves: two names may lead to one server."""
    from redis import Redis

    caches: dict[str, Any] = settings.CACHES
    hint = "A cache must evict, a broker must not, and eviction is per server: use two."
    for alias, cache in caches.items():
        location, given = cache.get("LOCATION") or "", cache.get("OPTIONS") or {}
        options = {name: given[name] for name in given if name.startswith(("username", "password", "ssl_"))}
        for url in re.split("[;,]", location) if isinstance(location, str) else location:
            if not url.startswith(("redis://", "rediss://", "unix://")):
                continue
            with Redis.from_url(url, **options, **REDIS) as client:
                servers = {info.get("run_id"), _info(client).get("run_id")}
            if None in servers:
                text = (
                    f"{broker} or the cache {alias!r} gives no INFO: this check cannot tell if they differ."
                )
                yield Warning(text, hint, id="reliability.W021")
            elif len(servers) == 1:
                yield Error(f"{broker} and the cache {alias!r} are one server.", hint, id="reliability.E021")


def _rabbitmq(connection: Connection, app: Celery, broker: str) -> Iterator[CheckMessage]:
    queues = app.amqp.queues.values()  # a worker declares them all
    types = {(queue.queue_arguments or {}).get("x-queue-type") for queue in queues}
    yield from age(connection.connection.server_properties, types, broker)
    entities: list[Any] = [*{queue.exchange.name: queue.exchange for queue in queues}.values(), *queues]
    errors: Any = connection.channel_errors
    for entity in entities:
        declare = entity.queue_declare if isinstance(entity, Queue) else entity.declare
        channel = connection.channel()
        try:
            declare(passive=True, channel=channel)  # fails where there is none: this check makes nothing,
            declare(channel=channel)  # it only compares
        except errors as error:
            if error.code == PRECONDITION_FAILED:
                text = f"{broker} has {entity.name!r} of another kind, and refuses ours for ever: {error}."
                hint = "Let workers with the old settings take what waits, then delete it with `celery amqp`."
                yield Error(text, hint, id="reliability.E023")
            elif error.code != NOT_FOUND:
                raise


def age(server: dict[str, Any], types: set[str | None], broker: str) -> Iterator[CheckMessage]:
    """Look at what the server says about itself; more it tells only to its management plugin."""
    old = server.get("product") == "RabbitMQ" and version_string_as_tuple(server["version"]) < (3, 10)
    if old and "quorum" in types:
        text = f"{broker} is RabbitMQ {server['version']}, where a quorum queue cannot expire messages."
        yield Warning(text, "Tasks with a countdown or ETA need 3.10 or newer.", id="reliability.W023")
