"""Worker and beat answer for themselves: live, ready or sick. Trouble of the broker makes neither sick."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from config import celeryconfig
from dev import BASE_DIR
from health import beat, worker
from tests import tasks
from tests.brokers import Broker, absent_broker
from tests.harness import StartWorker, Worker, eventually
from tests.relay import Relay, relay
from tests.wedge import BEAT_LIMIT, LIMIT

RESUMED = 15  # seconds from the broker's return to the run of a task
WEDGE = ("--include", "tests.tasks,tests.wedge")


@pytest.fixture
def way(other_broker: Broker) -> Iterator[Relay]:
    """The way to the other broker."""
    with relay(other_broker.url) as opened:
        yield opened


def ask(page: str, port: int) -> subprocess.CompletedProcess[str]:
    """Ask as a platform does whose probes are commands."""
    command = [sys.executable, "-S", "-E", "health/ask.py", page, str(port)]
    return subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True)


def is_sick(process: Worker) -> Callable[[], bool]:
    """Return whether its liveness probe fails."""
    return lambda: process.status("/livez") != 200


def test_a_probe_that_fails_twice_restarts_within_a_minute() -> None:
    """A probe each 10 s, as in the manifests, has failed twice by then."""
    assert max(worker.LIMIT, beat.LIMIT) + 2 * 10 <= 60


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_is_live_and_ready(start_worker: StartWorker, pool: str) -> None:
    process = start_worker("--pool", pool)
    assert process.status("/livez") == 200
    eventually(lambda: process.status("/readyz") == 200, "the worker to be ready")
    assert set(json.loads(process.get("/readyz")[1])["queues"].values()) == {True}
    assert "process_start_time_seconds" in process.get("/metrics")[1]
    assert process.status("/elsewhere") == 404


def test_a_probe_by_command(start_worker: StartWorker) -> None:
    process = start_worker()
    assert ask("livez", process.port).returncode == 0
    assert ask("elsewhere", process.port).returncode == 1
    process.kill()
    refused = ask("livez", process.port)
    assert refused.returncode == 1
    assert "No answer" in refused.stderr


def test_a_worker_that_is_stopped_is_not_live(start_worker: StartWorker) -> None:
    process = start_worker()
    os.kill(process.process.pid, signal.SIGSTOP)
    assert process.status("/livez", timeout=1) is None
    os.kill(process.process.pid, signal.SIGCONT)
    assert process.status("/livez") == 200


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_whose_loop_hangs_is_not_live(start_worker: StartWorker, pool: str) -> None:
    process = start_worker(*WEDGE, "--pool", pool)
    assert not is_sick(process)()
    os.kill(process.process.pid, signal.SIGUSR1)
    eventually(is_sick(process), "the probe to fail")


def test_a_long_task_in_the_solo_pool_is_no_illness(start_worker: StartWorker) -> None:
    """It holds up the loop for as long as its limit allows, and no longer."""
    process = start_worker(*WEDGE, "--pool", "solo")
    sent = tasks.take.apply_async((3 * LIMIT,), time_limit=2 * LIMIT)
    eventually(lambda: tasks.runs(sent.id), "the task to begin")
    eventually(
        lambda: json.loads(process.get("/livez")[1])["loop_age"] > LIMIT + 1, "the loop to stand still"
    )
    assert not is_sick(process)()
    eventually(is_sick(process), "the probe to fail, past the task's limit")
    eventually(lambda: not is_sick(process)(), "the worker to be well again, after the task")


def longest_standstill(process: Worker, seconds: float, of: str = "loop_age") -> float:
    """Return the highest age of the loop's last turn, or beat's last tick, that was told in this time."""
    ages: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ages.append(json.loads(process.get("/livez")[1])[of])
        time.sleep(0.2)
    return max(ages)


@pytest.mark.parametrize("fault", ["absent", "frozen", "killed", "half-open"])
def test_a_worker_without_broker_is_live_and_not_ready(
    start_worker: StartWorker, other_broker: Broker, way: Relay, tmp_path: Path, fault: str
) -> None:
    """It tries and waits, in turns that take far less than its loop may stand still."""
    urls = {"absent": absent_broker(tmp_path), "half-open": way.url}
    process = start_worker(BROKER_URL=urls.get(fault, other_broker.url))
    with ExitStack() as afterwards:
        if fault != "absent":
            eventually(lambda: process.status("/readyz") == 200, "the worker to be ready")
        if fault == "frozen":
            afterwards.enter_context(other_broker.frozen())
        if fault == "killed":
            other_broker.kill()
            afterwards.callback(other_broker.restart)
        if fault == "half-open":
            afterwards.enter_context(way.vanished())
        eventually(lambda: process.status("/readyz") == 503, "the worker to miss its broker")
        assert longest_standstill(process, worker.LIMIT / 2) < worker.LIMIT / 2
        assert process.status("/readyz") == 503
    if fault != "absent":
        eventually(lambda: process.status("/readyz") == 200, "the worker to be ready again")
        sent = other_broker.app.send_task("tests.tasks.misbehave", ("not at all",))
        eventually(lambda: tasks.runs(sent.id), "the task to run")


@pytest.mark.promise("reconnect")
def test_a_worker_takes_tasks_soon_after_its_broker_vanished(
    start_worker: StartWorker, other_broker: Broker, way: Relay
) -> None:
    """Its connection stays open, and nobody ends it."""
    process = start_worker(BROKER_URL=way.url)
    eventually(lambda: process.status("/readyz") == 200, "the worker to be ready")
    with way.vanished():
        eventually(lambda: process.status("/readyz") == 503, "the worker to miss its broker")
        if hasattr(celeryconfig, "broker_heartbeat"):  # it tells while the broker is away
            process.wait_for("Connection to broker lost")
    returned = time.monotonic()
    sent = other_broker.app.send_task("tests.tasks.misbehave", ("not at all",))
    eventually(lambda: tasks.runs(sent.id), "the task to run")
    assert time.monotonic() - returned < RESUMED
    assert process.status("/livez") == 200


def test_a_deaf_worker_is_live_and_not_ready(start_worker: StartWorker) -> None:
    process = start_worker(*WEDGE)
    eventually(lambda: process.status("/readyz") == 200, "the worker to be ready")
    process.deafen()
    sent = tasks.misbehave.delay("not at all")
    eventually(lambda: process.events("worker_is_deaf"), "the worker to notice")
    assert process.status("/livez") == 200
    assert process.status("/readyz") == 503
    assert not tasks.runs(sent.id)
    assert process.process.poll() is None


def test_a_deaf_worker_restarts_itself_once_where_that_is_wanted(start_worker: StartWorker) -> None:
    process = start_worker(*WEDGE, WORKER_RESTART_IF_DEAF="true")
    for _ in range(2):
        restarts = process.log.read_text().count(" ready.")
        eventually(lambda: process.status("/readyz") == 200, "the worker to be ready")
        process.deafen()
        sent = tasks.misbehave.delay("not at all")
        eventually(partial(tasks.runs, sent.id), "the task to run after the restart")
        assert process.log.read_text().count(" ready.") == restarts + 1


def test_a_worker_that_stays_deaf_restarts_no_more(start_worker: StartWorker) -> None:
    process = start_worker(*WEDGE, WORKER_RESTART_IF_DEAF="true", RESTARTED_BECAUSE_DEAF="1")
    process.deafen()
    tasks.misbehave.delay("not at all")
    (line, *_) = eventually(lambda: process.events("worker_is_deaf"), "the worker to notice")
    assert line["restarts"] is False
    assert process.status("/livez") == 200


@pytest.mark.parametrize("why", ["long tasks", "a rate limit"])
def test_a_busy_worker_is_not_deaf(start_worker: StartWorker, why: str) -> None:
    """What waits behind tasks that run, or for a rate limit, is no sign of illness."""
    process = start_worker(*WEDGE, "--concurrency", "1")
    for _ in range(12):
        if why == "a rate limit":
            tasks.rare.delay()
        else:
            tasks.take.apply_async((6 * LIMIT,), time_limit=60, soft_time_limit=50)
    eventually(lambda: process.get("/readyz")[0] == 200, "the worker to be ready")
    with pytest.raises(subprocess.TimeoutExpired):
        process.process.wait(4 * LIMIT)
    assert process.status("/readyz") == 200
    assert not process.events("worker_is_deaf")


def test_a_port_that_is_taken_keeps_no_worker_from_its_work(start_worker: StartWorker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start_worker(METRICS_PORT=str(taken.getsockname()[1]))
    assert process.events("monitoring_not_served")
    sent = tasks.misbehave.delay("not at all")
    eventually(lambda: tasks.runs(sent.id), "the task to run")


def test_nobody_else_can_ask(start_worker: StartWorker) -> None:
    """Without METRICS_HOST it listens on loopback, and on no other address of this machine."""
    process = start_worker()
    assert process.status("/livez") == 200
    with socket.socket() as probe:  # another address of loopback, which 0.0.0.0 would answer at too
        assert probe.connect_ex(("127.0.0.2", process.port)) != 0
    other = start_worker(METRICS_HOST="127.0.0.2")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", other.port)) == 0


def test_beat_is_live_and_says_when_it_sent(start_beat: StartWorker) -> None:
    process = start_beat("schedule")
    eventually(lambda: process.status("/livez") == 200, "beat to answer")
    eventually(lambda: json.loads(process.get("/readyz")[1])["last_sent"] is not None, "beat to send")
    assert process.status("/readyz") == 200


def test_beat_with_nothing_to_send_is_live(servers: None, tmp_path: Path) -> None:
    """Its only entries are due once an hour or a day, and it looks at them every few seconds."""
    command = ["-A", "tests.app", "beat", "--schedule", str(tmp_path / "schedule")]
    process = Worker(tmp_path / "beat.log", {"BROKER_URL": os.environ["BROKER_URL"]}, command)
    try:
        eventually(lambda: process.status("/livez") == 200, "beat to answer")
        highest = longest_standstill(process, 3 * beat.LIMIT / 8, "last_tick")
        assert highest < beat.LIMIT / 4
    finally:
        process.kill()


def test_beat_that_hangs_is_not_live(start_beat: StartWorker) -> None:
    process = start_beat("schedule")
    eventually(lambda: process.status("/livez") == 200, "beat to answer")
    os.kill(process.process.pid, signal.SIGUSR1)
    eventually(is_sick(process), "the probe to fail")


@pytest.mark.parametrize("fault", ["frozen", "half-open"])
def test_beat_without_broker_is_live(
    start_beat: StartWorker, other_broker: Broker, way: Relay, fault: str
) -> None:
    process = start_beat("schedule", BROKER_URL=way.url if fault == "half-open" else other_broker.url)
    eventually(lambda: process.status("/readyz") == 200, "beat to be ready")
    with other_broker.frozen() if fault == "frozen" else way.vanished():
        eventually(lambda: "SchedulingError" in process.log.read_text(), "beat to miss its broker")
        for _ in range(3 * BEAT_LIMIT):
            with pytest.raises(subprocess.TimeoutExpired):
                process.process.wait(0.5)
            assert process.status("/livez") == 200


def test_systemd_is_told_while_the_worker_is_live(start_worker: StartWorker, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        process = start_worker(*WEDGE, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"WATCHDOG=1"
        os.kill(process.process.pid, signal.SIGUSR1)
        eventually(is_sick(process), "the probe to fail")
        systemd.settimeout(2)

        def is_silent() -> bool:
            try:
                return not systemd.recv(100)  # what was said before
            except TimeoutError:
                return True

        eventually(is_silent, "silence")
