"""A broker that would lose tasks is refused: the worker ends before it takes any, and says why."""

# jinja: if cookiecutter.broker == "redis"
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from pytest_django import Settings

from dev import BASE_DIR
from dev.processes import free_port
from dev.valkey import Valkey
from reliability.broker import examine, look
from tests.harness import PATIENCE, StartWorker, Worker, eventually
from tests.test_tls import BROKER_URL, STRANGER, TlsServer

# jinja: else
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue

from config.celery import app as project
from dev import BASE_DIR
from dev.processes import free_port
from reliability.broker import age, examine
from tests.harness import PATIENCE, StartWorker, Worker, eventually, waiting_messages
from tests.test_tls import BROKER_URL, STRANGER, TlsServer

# jinja: endif
pytestmark = pytest.mark.promise("check_broker")

REQUIRED, NONE = ssl.CERT_REQUIRED, ssl.CERT_NONE
VERIFIED = [
    ("redis://127.0.0.1:{port}/0", False),
    ("rediss://127.0.0.1:{port}/0", {"ssl_cert_reqs": REQUIRED}),
    ("rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required", False),
    ("amqp://127.0.0.1:{port}//", False),
    ("amqps://127.0.0.1:{port}//", {"cert_reqs": REQUIRED, "server_hostname": None}),
    ("amqps://127.0.0.1:{port}//", {"context": {"check_hostname": True}}),
]
UNVERIFIED = [
    ("rediss://127.0.0.1:{port}/0", False),
    ("rediss://127.0.0.1:{port}/0", {"ssl_cert_reqs": NONE}),
    ("rediss://127.0.0.1:{port}/0", {"ssl_cert_reqs": REQUIRED, "ssl_check_hostname": False}),
    ("rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none", {"ssl_cert_reqs": REQUIRED}),
    ("amqps://127.0.0.1:{port}//", True),
    ("amqps://127.0.0.1:{port}//", {"cert_reqs": NONE}),
    ("amqps://127.0.0.1:{port}//", {"cert_reqs": REQUIRED}),
]


def application(broker_url: str, **settings: Any) -> Celery:
    """Return an application of its own on this broker."""
    app = Celery(broker=broker_url, set_as_current=False)
    app.conf.update(settings)
    return app


def found(app: Celery) -> list[str | None]:
    """Return the ids of what is wrong with its broker."""
    return [message.id for message in examine(app)]


def said(worker: Worker) -> list[str]:
    """Return the ids that a worker has logged."""
    return re.findall(r"reliability\.[EW]\d+", worker.log.read_text())


def log_of_ended(worker: Worker) -> str:
    """Return what a worker said that ended by itself, with status 1 and not by an exception."""
    assert worker.process.wait(PATIENCE) == 1
    log = worker.log.read_text()
    assert "Traceback" not in log
    assert "ready." not in log
    return log


# jinja: if cookiecutter.broker == "redis"
class Broker(Valkey):
    """A server that somebody else has configured."""

    def __init__(self, folder: Path, *lines: str) -> None:
        super().__init__(folder, free_port(), "open-sesame", durable=False)
        self.lines = lines

    def prepare(self) -> None:
        super().prepare()
        with self.configuration.open("a") as file:
            file.writelines(f"{line}\n" for line in self.lines)  # the last word on each option

    @property
    def url(self) -> str:
        """Where it is."""
        return self.urls["BROKER_URL"]

    def client(self) -> redis.Redis:
        """Return a client of it."""
        return redis.Redis.from_url(self.url)


StartBroker = Callable[..., Broker]
NO_CONFIG = "user default on >open-sesame ~* &* +@all -config"


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Start servers: `start_broker("appendonly no", "maxmemory 6mb")`."""
    brokers: list[Broker] = []

    def start(*lines: str) -> Broker:
        brokers.append(Broker(tmp_path / f"broker-{len(brokers)}", *lines))
        brokers[-1].start()
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.stop()


def send(broker: Broker, number: int = 50) -> None:
    """Let this many tasks wait in it."""
    app = application(broker.url)
    for _ in range(number):
        app.send_task("anything")


def waiting(broker: Broker) -> int:
    """Return how many tasks wait in it."""
    with broker.client() as client:
        return int(client.llen("celery"))


@pytest.mark.parametrize(
    ("policy", "left", "verdict"),
    [
        ("noeviction", 50, []),
        ("volatile-lru", 50, ["reliability.W020"]),
        ("allkeys-lru", 0, ["reliability.E020"]),
        ("allkeys-random", 0, ["reliability.E020"]),
    ],
)
def test_an_eviction_policy_is_judged_by_what_becomes_of_waiting_tasks(
    start_broker: StartBroker, policy: str, left: int, verdict: list[str]
) -> None:
    broker = start_broker(f"maxmemory-policy {policy}", "maxmemory 6mb")
    send(broker)
    with broker.client() as client:
        with suppress(redis.exceptions.OutOfMemoryError):
            for number in range(5000):
                client.set(f"page-{number}", "x" * 10_000, ex=600)  # as a cache does
        assert (client.info("stats")["evicted_keys"] == 0) == (policy == "noeviction")
    assert waiting(broker) == left
    assert found(application(broker.url)) == verdict


@pytest.mark.parametrize(
    ("lines", "left", "verdict"),
    [
        (["appendonly yes"], 50, []),
        (["appendonly no"], 0, ["reliability.W024"]),
        (["appendonly no", 'save ""'], 0, ["reliability.W024"]),
        (["appendfsync no"], 50, ["reliability.W024"]),  # what a power cut would lose
    ],
)
def test_persistence_is_judged_by_what_is_left_after_a_crash(
    start_broker: StartBroker, lines: list[str], left: int, verdict: list[str]
) -> None:
    broker = start_broker(*lines)
    assert found(application(broker.url)) == verdict
    send(broker)
    assert broker.process is not None
    broker.process.kill()
    broker.process.wait()
    broker.start()
    assert waiting(broker) == left


def test_a_worker_ends_before_it_takes_a_task_from_a_broker_that_drops_them(
    start_broker: StartBroker, start_worker: StartWorker
) -> None:
    broker = start_broker("maxmemory-policy allkeys-lru")
    send(broker, 1)
    worker = start_worker(BROKER_URL=broker.url)
    assert "maxmemory-policy allkeys-lru" in log_of_ended(worker)
    assert said(worker) == ["reliability.E020"]
    assert waiting(broker) == 1
    assert "open-sesame" not in worker.log.read_text()


def test_beat_ends_too(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker("maxmemory-policy allkeys-lru")
    command = ["-A", "config", "beat", "--schedule", str(tmp_path / "schedule")]
    beat = Worker(tmp_path / "beat.log", {"BROKER_URL": broker.url}, command)
    try:
        log_of_ended(beat)
    finally:
        beat.kill()
    assert said(beat) == ["reliability.E020"]


def test_a_broker_that_was_frozen_is_looked_at_once_it_answers(
    start_broker: StartBroker, start_worker: StartWorker
) -> None:
    broker = start_broker("maxmemory-policy allkeys-lru")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    try:
        worker = start_worker(BROKER_URL=broker.url)
        worker.wait_for("Cannot connect to")
    finally:
        broker.process.send_signal(signal.SIGCONT)
    log_of_ended(worker)
    assert said(worker) == ["reliability.W025", "reliability.E020"]


def test_a_managed_broker_that_cannot_be_asked_is_only_warned_about(
    start_broker: StartBroker, start_worker: StartWorker
) -> None:
    """With what INFO tells: such a server may be right, and those who use it may be unable to change it."""
    renamed = start_broker('rename-command CONFIG ""', "maxmemory-policy allkeys-lru")
    assert found(application(renamed.url)) == ["reliability.W026"]
    denied = start_broker(NO_CONFIG, "maxmemory-policy allkeys-lru")
    worker = start_worker(BROKER_URL=denied.url)
    worker.wait_for("ready.")
    assert said(worker) == ["reliability.W026"]
    assert "cannot tell whether it keeps tasks" in worker.log.read_text()
    assert "by INFO the policy is allkeys-lru" in worker.log.read_text()


def test_a_worker_ends_when_the_cache_is_on_the_brokers_server(
    start_broker: StartBroker, start_worker: StartWorker
) -> None:
    """Under another name and in another database: the server's memory is one."""
    broker = start_broker()
    worker = start_worker(
        BROKER_URL=broker.url, CACHE_URL=f"redis://:{broker.password}@localhost:{broker.port}/3"
    )
    assert "the cache 'default' are one server" in log_of_ended(worker)
    assert said(worker) == ["reliability.E021"]


def test_in_development_one_server_will_do(start_broker: StartBroker, settings: Settings) -> None:
    broker = start_broker()
    settings.CACHES = {"default": {"BACKEND": "any", "LOCATION": broker.url}}
    assert found(application(broker.url)) == ["reliability.E021"]
    settings.DEBUG = True
    assert found(application(broker.url)) == []


def test_every_location_of_every_cache_is_compared(
    start_broker: StartBroker, settings: Settings, tmp_path: Path
) -> None:
    broker, other = start_broker(f"unixsocket {tmp_path}/socket"), start_broker()
    elsewhere = f"redis://127.0.0.1:{other.port}"
    settings.CACHES = {
        "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "list": {
            "BACKEND": "any",
            "LOCATION": [elsewhere, broker.url],
            "OPTIONS": {"password": other.password},
        },
        "text": {"BACKEND": "any", "LOCATION": f"{other.url};{broker.url}", "OPTIONS": {"CLIENT": "any"}},
        "socket": {"BACKEND": "any", "LOCATION": f"unix://:{broker.password}@{tmp_path}/socket"},
    }
    refused = [message.msg for message in examine(application(broker.url))]
    assert [re.findall("cache '(.*)'", text) for text in refused] == [["list"], ["text"], ["socket"]]


def test_a_cache_that_cannot_be_asked_is_only_warned_about(
    start_broker: StartBroker, settings: Settings
) -> None:
    """It says nothing about itself, it is away, or it is frozen."""
    broker, mute = start_broker(), start_broker(NO_CONFIG + " -info")
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        for port in (mute.port, free_port(), frozen.getsockname()[1]):
            location = f"redis://:{mute.password}@127.0.0.1:{port}/0"
            settings.CACHES = {"default": {"BACKEND": "any", "LOCATION": location}}
            assert found(application(broker.url)) == ["reliability.W021"]
    settings.CACHES = {"default": {"BACKEND": "any", "LOCATION": mute.url}}
    assert found(application(mute.url)) == ["reliability.W026", "reliability.W021"]


def test_a_single_rule_or_all_of_them_can_be_switched_off(
    start_broker: StartBroker, settings: Settings
) -> None:
    worker = SimpleNamespace(app=application(start_broker("maxmemory-policy allkeys-lru").url))
    with pytest.raises(SystemExit):
        look(None, worker)
    settings.SILENCED_SYSTEM_CHECKS = ["reliability.E020"]
    look(None, worker)
    settings.SILENCED_SYSTEM_CHECKS = []
    settings.RELIABILITY = {"check_broker": False}
    look(None, worker)


def test_a_worker_sends_nothing_to_a_broker_that_need_not_prove_who_it_is(start_worker: StartWorker) -> None:
    """Not even the password: the URL overrules the settings, and hosters recommend such URLs."""
    server = TlsServer(STRANGER.issue_cert("localhost"))
    worker = start_worker(BROKER_URL=BROKER_URL.format(port=server.port) + "?ssl_cert_reqs=none")
    log_of_ended(worker)
    assert said(worker) == ["reliability.E022"]
    assert server.heard == []
    server.socket.close()


# jinja: else
def test_a_worker_ends_when_its_queue_was_made_with_other_settings(start_worker: StartWorker) -> None:
    """A queue cannot be changed. Every start would fail, and what waits in it has to be taken first."""
    old = Queue("celery", queue_arguments={"x-max-priority": 3})
    with project.connection_for_write() as connection:
        old(connection.default_channel).delete()
        old(connection.default_channel).declare()
        connection.Producer().publish({}, routing_key="celery")
    worker = start_worker(BROKER_URL=os.environ["BROKER_URL"])
    log = log_of_ended(worker)
    assert "PRECONDITION_FAILED" in log
    assert "take what waits, then delete it" in log
    assert said(worker) == ["reliability.E023"]
    assert waiting_messages() == 1


@pytest.mark.usefixtures("servers")
def test_the_check_makes_nothing_and_sees_an_exchange_of_another_type() -> None:
    queue = Queue("anew", Exchange("anew", "topic"), routing_key="anew")
    app = application(os.environ["BROKER_URL"], task_queues=[queue])
    assert found(app) == []
    with app.connection_for_write() as connection:
        exchange = Exchange("anew", "direct")(connection.default_channel)
        exchange.declare()  # refused, had the check made one of type topic
        assert found(app) == ["reliability.E023"]
        exchange.delete()
        with pytest.raises(connection.channel_errors, match="NOT_FOUND"):
            queue(connection.channel()).queue_declare(passive=True)


@pytest.mark.parametrize(
    ("product", "version", "kind", "warned"),
    [
        ("RabbitMQ", "3.9.13", "quorum", True),
        ("RabbitMQ", "3.9.13", "classic", False),
        ("RabbitMQ", "3.10.0", "quorum", False),
        ("RabbitMQ", "4.2.1-rc.1", "quorum", False),
        ("Another", "2.4.0", "quorum", False),
    ],
)
def test_a_rabbitmq_too_old_for_countdowns_is_warned_about(
    product: str, version: str, kind: str, warned: bool
) -> None:
    messages = age({"product": product, "version": version}, {None, kind}, "The broker")
    assert [message.id for message in messages] == ["reliability.W023"] * warned


# jinja: endif
def test_a_healthy_broker_is_met_with_silence(start_worker: StartWorker) -> None:
    assert said(start_worker()) == []


@pytest.mark.parametrize("deploy", [False, True])
def test_only_the_deploy_check_asks_the_broker(deploy: bool) -> None:
    """Tests, migrations and `manage.py check` need none. And one that is away is no error."""
    command = [sys.executable, "manage.py", "check", *(["--deploy", "--tag", "broker"] if deploy else [])]
    result = subprocess.run(
        command,
        cwd=BASE_DIR,
        env={**os.environ, "BROKER_URL": re.sub(r":\d+/", f":{free_port()}/", os.environ["BROKER_URL"])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0
    assert ("cannot tell whether it keeps tasks" in result.stderr) == deploy


@pytest.mark.parametrize("broker_url", ["redis://127.0.0.1:{port}/0", "amqp://127.0.0.1:{port}//"])
def test_a_frozen_broker_delays_a_start_by_seconds(broker_url: str) -> None:
    """It accepts, since the system does that, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert found(application(broker_url.format(port=silent.getsockname()[1]))) == ["reliability.W025"]
        assert 1 < time.monotonic() - began < 5


@pytest.mark.parametrize(("broker_url", "options"), VERIFIED)
def test_a_broker_that_proves_who_it_is_is_asked(broker_url: str, options: Any) -> None:
    app = application(broker_url.format(port=free_port()), broker_use_ssl=options)
    assert found(app) == ["reliability.W025"], "asked, and away"


@pytest.mark.parametrize(("broker_url", "options"), UNVERIFIED)
def test_a_broker_that_need_not_prove_who_it_is_is_refused(
    broker_url: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is asked. Only BROKER_TLS_VERIFY=off makes that a warning."""
    app = application(broker_url.format(port=free_port()), broker_use_ssl=options)
    assert found(app) == ["reliability.E022"]
    monkeypatch.setenv("BROKER_TLS_VERIFY", "off")
    assert found(app) == ["reliability.W022", "reliability.W025"]


def test_broker_tls_verify_off_takes_any_certificate_and_warns(start_worker: StartWorker) -> None:
    server = TlsServer(STRANGER.issue_cert("broker.example.com"))
    broker_url = BROKER_URL.format(port=server.port)
    worker = start_worker(BROKER_URL=broker_url, BROKER_TLS_VERIFY="off")
    worker.wait_for("reliability.W022")
    eventually(lambda: any(server.heard), "a word to the stranger")
    server.socket.close()
