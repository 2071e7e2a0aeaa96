"""The broker of the fault suite: what it holds, and how it dies."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Connection

from dev.processes import Server
from faults.malformed import Malformed
from tests.harness import eventually

QUEUES = ["celery", "long", "rejected"]
DELAYED = [f"celery_delayed_{bit}" for bit in range(28)]  # kombu's, for a countdown on quorum queues


class Broker:
    """A real Redis-protocol server or RabbitMQ, started by us, so that it may be killed."""

    def __init__(self, server: Server) -> None:
        """`server` runs, or will before anything is asked."""
        self.server = server
        self.url = server.urls["BROKER_URL"]
        self.name = "redis" if self.url.startswith("redis") else "rabbitmq"  # as the project's answer has it

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Open a connection of our own. The channel differs by transport; Redis' has its `client`."""
        with Connection(self.url) as connection:
            yield connection.default_channel

    def version(self) -> str:
        """Return the server's name and version."""
        with self.channel() as channel:
            if self.name == "redis":
                found = channel.client.info("server")
                number = found.get("valkey_version", found["redis_version"])
            else:
                number = channel.connection.server_properties["version"]
        return f"{self.server.name} {number}"

    def held(self) -> int:
        """Return how many messages it would still deliver.

        On RabbitMQ those that a living worker has are not counted; on Redis they are.
        """
        held = self.ready()
        if self.name == "redis":
            with self.channel() as channel:
                held += int(channel.client.hlen("unacked"))
        return held

    def ready(self) -> int:
        """Return how many messages no worker has."""
        if self.name == "redis":
            with self.channel() as channel:
                return sum(int(channel.client.llen(queue)) for queue in QUEUES)
        with Connection(self.url) as connection:
            return sum(_ready(connection, queue) for queue in [*QUEUES, *DELAYED])

    def empty(self) -> None:
        """Drop everything, queues and exchange too: another profile may declare them otherwise."""
        with self.channel() as channel:
            if self.name == "redis":
                channel.client.flushdb()
                return
            for queue in [*QUEUES, *DELAYED]:
                channel.queue_delete(queue)
            channel.exchange_delete("celery")

    def put(self, message: Malformed) -> None:
        """Put a message straight on the queue."""
        with Connection(self.url) as connection:
            if message.raw:
                client: Any = getattr(connection.default_channel, "client")  # noqa: B009  # only Redis has one
                client.lpush("celery", message.body)
                return
            connection.Producer().publish(
                message.body,
                routing_key="celery",
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=message.headers,
            )

    def kill(self) -> None:
        """SIGKILL, as when its process runs out of memory; return when nobody listens any more."""
        process = self.server.process
        assert process, "the broker was never started"
        assert process.poll() is None, "the broker is gone already"
        self._wait_for_disk()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        eventually(lambda: not self._is_listening(), f"{self.server.name} is gone")

    def start(self) -> None:
        """Start it again, with the data that it had; does nothing while it runs."""
        if not self._is_listening():
            self.server.start()

    def _wait_for_disk(self) -> None:
        """Wait until it has written what it confirmed: that it may lose its last second is no news.

        Redis writes each second ("everysec"). RabbitMQ writes messages first, but 3.10 notes the name of a
        new quorum queue later, and when it is killed before it never finds the queue again.
        """
        deadline = time.monotonic() + 3
        while not self._is_on_disk() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _is_on_disk(self) -> bool:
        if self.name == "redis":
            with self.channel() as channel:
                return not channel.client.info("persistence")["aof_buffer_length"]
        folder = next(self.server.folder.glob("rabbitmq/mnesia/*/quorum/*/"))
        noted = (folder / "names.dets").read_bytes()
        return all(path.name.encode() in noted for path in folder.iterdir() if path.is_dir())

    def _is_listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.server.port)) == 0


def _ready(connection: Connection, queue: str) -> int:
    channel: Any = connection.default_channel  # a new one, after an error has closed the last
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except connection.channel_errors:  # nobody has made it
        return 0
