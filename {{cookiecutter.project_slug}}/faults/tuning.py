"""How a broker can be set up wrongly, or so that it is sooner at its limit."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redis import ResponseError

from faults.broker import Broker


@contextmanager
def evicting(broker: Broker) -> Iterator[None]:
    """Make Redis forget what it likes when it is full, which it soon is: the policy of a cache."""
    with broker.channel() as channel:
        kept = channel.client.config_get("maxmemory-policy")["maxmemory-policy"]
        full = channel.client.info("memory")["used_memory"] + 6 * 2**20
        channel.client.config_set("maxmemory-policy", "allkeys-lru")
        channel.client.config_set("maxmemory", full)
    try:
        yield
    finally:
        with broker.channel() as channel:
            channel.client.config_set("maxmemory", 0)
            channel.client.config_set("maxmemory-policy", kept)


def keep_everything(broker: Broker) -> None:
    """Give Redis the policy of a broker, as the one does who reads what the worker says."""
    with broker.channel() as channel:
        channel.client.config_set("maxmemory-policy", "noeviction")


def fill(broker: Broker) -> None:
    """Write into Redis, as a cache does, far more than it may hold."""
    refused = 0
    with broker.channel() as channel:
        for number in range(2000):
            try:
                channel.client.set(f"cached-{number}", b"x" * 10_000)
            except ResponseError:
                refused += 1
        evicted = channel.client.info("stats")["evicted_keys"]
    assert evicted or refused, "it was never full"


@contextmanager
def impatient(broker: Broker, seconds: int) -> Iterator[None]:
    """Have RabbitMQ take back what is not acknowledged in time, on channels opened from now on."""
    names = ("consumer_timeout", "channel_tick_interval")
    usual = [rabbitmqctl(broker, f"{{ok, X}} = application:get_env(rabbit, {name}), X.") for name in names]
    _set(broker, names, (str(seconds * 1000), "500"))
    try:
        yield
    finally:
        _set(broker, names, usual)


def rabbitmqctl(broker: Broker, expression: str) -> str:
    """Have RabbitMQ evaluate an Erlang expression, and return what it prints."""
    environment = broker.server.environment()
    command = [str(broker.server.program.with_name("rabbitmqctl")), "-n", environment["RABBITMQ_NODENAME"]]
    done = subprocess.run([*command, "eval", expression], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def _set(broker: Broker, names: Sequence[str], milliseconds: Sequence[str]) -> None:
    for name, value in zip(names, milliseconds, strict=True):
        rabbitmqctl(broker, f"application:set_env(rabbit, {name}, {value}).")
