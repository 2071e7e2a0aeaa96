"""What Redis or Valkey tells about the queues in it, and about itself."""

import json
import time
from collections.abc import Iterator
from typing import Any

from celery.app import app_or_default
from kombu.transport.redis import Channel
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from reliability import messages

LOOKED_AT = 8  # messages at a list's end that are looked at for one that is not for later


class Broker:
    """The broker, by a client of its own: kombu's would not connect to one that refuses to be written to."""

    name = "broker"

    def __init__(self) -> None:
        self.conf, self.queues = app_or_default().conf, app_or_default().amqp.queues
        options = {
            **(self.conf.broker_use_ssl or {}),
            "socket_connect_timeout": 1,
            "socket_timeout": 2,
        }  # seconds
        self.client: Any = Redis.from_url(self.conf.broker_url, retry=Retry(NoBackoff(), 0), **options)

    def ask(self) -> Iterator[Metric]:
        yield from self._queues()
        yield from _server(self.client.info("everything"))

    def _queues(self) -> Iterator[Metric]:
        """Ask for all queues at once, with the lists of their priorities, and for what workers hold."""
        lists = [(queue, key) for queue in self.queues for key in lists_of(queue)]
        with self.client.pipeline(transaction=False) as pipeline:
            for _, key in lists:
                pipeline.llen(key).lindex(key, -1)
            pipeline.hlen(Channel.unacked_key)
            pipeline.zrange(Channel.unacked_index_key, 0, 0, withscores=True)
            *found, unacked, oldest = pipeline.execute()
        now = time.time()
        lengths = dict.fromkeys(self.queues, 0)
        ages = dict.fromkeys(self.queues, 0.0)
        for (queue, key), length, last in zip(lists, found[::2], found[1::2], strict=True):
            lengths[queue] += length
            if length:
                ages[queue] = max(ages[queue], self._age(key, last, now))
        ready = GaugeMetricFamily(
            "celery_queue_messages", "Messages that wait for a worker.", labels=["queue"]
        )
        age = GaugeMetricFamily(
            "celery_queue_oldest_message_age_seconds",
            "The age of the message that is next, from sending or its ETA; source: message.",
            labels=["queue", "source"],
        )
        for queue, length in lengths.items():
            ready.add_metric([queue], length)
            age.add_metric([queue, "message"], ages[queue])
        yield from (ready, age)
        held = GaugeMetricFamily(
            "celery_unacked_messages",
            "Messages that workers hold: run, prefetched, or waiting for their ETA. Redis tells no queue.",
            labels=["queue"],
        )
        held.add_metric(["(all)"], unacked)
        held_for = GaugeMetricFamily(
            "celery_oldest_unacked_age_seconds", "For how long one of these has been held.", labels=["queue"]
        )
        held_for.add_metric(["(all)"], max(0.0, now - oldest[0][1]) if oldest else 0.0)
        timeout = self.conf.broker_transport_options["visibility_timeout"]
        yield from (held, held_for)
        yield GaugeMetricFamily(
            "celery_visibility_timeout_seconds",
            "After so long a message that a worker holds is given to another one.",
            value=timeout,
        )

    def _age(self, key: str, last: bytes | None, now: float) -> float:
        """Return the age of the first message from the list's end that is not for later; 0 without one."""
        for position in range(1, LOOKED_AT + 1):
            message = last if position == 1 else self.client.lindex(key, -position)
            if message is None:
                break
            since = _waits_since(message)
            if since is not None and since <= now:
                return now - since
        return 0.0


def lists_of(queue: str) -> list[str]:
    """Return the keys of a queue's lists, one for each priority, as kombu names them."""
    others = Channel.priority_steps[1:]
    return [queue, *(f"{queue}{Channel.sep}{priority}" for priority in others)]


def _waits_since(message: bytes) -> float | None:
    """Return since when the message could run, seconds since 1970; None when it does not say."""
    try:
        headers = json.loads(message)["headers"]
        return messages.runnable_since(headers.get("sent_at"), headers.get("eta"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _server(info: dict[str, Any]) -> Iterator[Metric]:
    def number(name: str, text: str, value: Any) -> Metric:
        return GaugeMetricFamily(name, text, value=float(value or 0))

    yield number("celery_broker_memory_bytes", "Memory in use.", info["used_memory"])
    yield number("celery_broker_memory_limit_bytes", "maxmemory; 0 for none.", info.get("maxmemory"))
    yield number(
        "celery_broker_system_memory_bytes",
        "Memory of the machine.",
        info.get("total_system_memory"),
    )
    policy = info.get("maxmemory_policy", "unknown")
    yield InfoMetricFamily("celery_broker_eviction_policy", "maxmemory-policy.", value={"policy": policy})
    yield number("celery_broker_evicts", "1 when messages may be evicted, else 0.", policy != "noeviction")
    yield CounterMetricFamily(
        "celery_broker_evicted_keys", "Keys evicted since it started.", value=info["evicted_keys"]
    )
    persistent = info.get("aof_enabled") or info.get("rdb_last_save_time")
    yield number("celery_broker_persists", "1 with the append-only file.", info.get("aof_enabled"))
    works = all(
        info.get(field, "ok") == "ok"
        for field in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    )
    yield number("celery_broker_persistence_works", "1 when the last writes to disk succeeded.", works)
    if persistent:
        yield number(
            "celery_broker_last_save_age_seconds",
            "Since the last whole copy on disk; with the append-only file later changes are there too.",
            time.time() - info["rdb_last_save_time"],
        )
    yield number("celery_broker_connections", "Clients that are connected.", info["connected_clients"])
    yield number("celery_broker_connections_limit", "maxclients.", info.get("maxclients"))
