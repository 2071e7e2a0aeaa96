"""What is done for speed loses nothing, and runs nothing twice."""

import os
import signal
from typing import Any

import pytest
from kombu import Connection
from kombu.transport.redis import Channel

from jobs.models import Report
from reliability import throughput
from tests.brokers import received_ids
from tests.harness import PATIENCE, StartWorker, ask_worker, eventually, waiting_messages
from tests.test_worker import order, wait_until_finished


@pytest.mark.promise("drain")
def test_what_has_finished_when_a_busy_worker_is_stopped_does_not_run_again(
    start_worker: StartWorker,
) -> None:
    """Not even the last tasks, whose acknowledgements wait for others."""
    reports = [order(seconds=0.02) for _ in range(200)]
    worker = start_worker("-X", "long", "--include", "tests.unhurried")
    eventually(Report.objects.exclude(finished_at=None).exists, "the first report")
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(PATIENCE)
    unfinished = Report.objects.filter(finished_at=None).count()
    assert unfinished, "nothing was left to do"
    assert waiting_messages() == unfinished
    start_worker()
    wait_until_finished(*reports)
    assert {report.attempts for report in reports} == {1}


@pytest.mark.parametrize("without", ["", "drain"])
def test_what_has_finished_when_an_idle_worker_is_stopped_does_not_run_again(
    start_worker: StartWorker, without: str
) -> None:
    """By Celery's own shutdown too, which forgets a task now and then that ends just then."""
    worker = start_worker("-X", "long", "--include", "tests.unhurried", WITHOUT=without)
    wait_until_finished(order())
    eventually(lambda: ask_worker("reserved") == [], "the worker knows that it finished")
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(PATIENCE)
    assert received_ids() == []


@pytest.mark.promise("throughput")
def test_one_client_serves_a_connection_to_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    channels: Any = Channel
    monkeypatch.setattr(channels, "_create_client", channels._create_client)  # put back after the test
    throughput.keep_clients()
    with Connection(os.environ["CACHE_URL"]) as connection:
        channel: Any = connection.default_channel
        client = channel._create_client()
        assert channel._create_client() is client
        assert channel._create_client(asynchronous=True) is not client
        channel._disconnect_pools()
        assert channel._create_client().ping()
        assert channel._create_client() is not client
