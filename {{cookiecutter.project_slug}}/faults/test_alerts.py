"""Each alert arrives when its fault happens, and is resolved after the repair: real Prometheus, real faults.

The rules are those of monitoring/, with seconds for minutes. What follows from a fault is inhibited.
"""

import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

from config.celery import app
from faults import effects
from faults.alerting import MISSING, Monitoring
from faults.servers import away
from faults.tuning import evicting, fill, keep_everything, rabbitmqctl
from faults.working import FaultWorker
from faults.world import World
from health.worker import LIMIT
from tests.harness import Worker, database_url, eventually

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
LONGER = {"time_limit": 60, "soft_time_limit": 55}
PATIENT = {"TASK_LONGEST_DELAY": "60"}  # on Redis, a visibility timeout that such tasks keep
WEDGE = ("--include", "faults.tasks,tests.wedge")


@pytest.fixture
def monitoring(world: World) -> Iterator[Monitoring]:
    """What watches the world."""
    started = Monitoring(world)
    yield started
    started.end()


@pytest.fixture
def worker(world: World, monitoring: Monitoring) -> FaultWorker:
    """A worker that is watched, ready, and that can be made sick."""
    return start_worker(world, monitoring, *WEDGE)


def start_worker(
    world: World, monitoring: Monitoring, *arguments: str, port: int = 0, patient: bool = False
) -> FaultWorker:
    """Start a worker of all queues, have it watched, and return when Prometheus knows that it takes tasks."""
    queues = ",".join(app.amqp.queues)
    environment = at(port) | (PATIENT if patient else {})
    started = world.start_worker("-Q", queues, *arguments, environment=environment)
    monitoring.watch("worker", started)
    eventually(lambda: monitoring.value('celery_worker_consuming{queue="celery"} == 1'), "a healthy worker")
    if not port:
        monitoring.forget()
    return started


def at(port: int) -> dict[str, str]:
    """Return what has a process serve its figures on this port, and not on a free one."""
    return {"METRICS_PORT": str(port)} if port else {}


def start_beat(
    world: World,
    monitoring: Monitoring,
    entries: str,
    *,
    port: int = 0,
    queue: str = "celery",
    **settings: Any,
) -> Worker:
    """Start a beat that sends a task by each of the entries every second, and have it watched."""
    options = {"expires": 30, "queue": queue}
    schedule = {
        entry: {"task": "faults.tasks.do_nothing", "schedule": 1.0, "options": options}
        for entry in entries.split()
    }
    settings |= {"beat_schedule": schedule, "beat_max_loop_interval": 0.2}
    beat = Worker(
        world.folder / f"beat-{time.monotonic_ns()}.log",
        {
            **world.environment,
            "FAULTS_SETTINGS": json.dumps(settings),
            **at(port),
        },
        ["-A", "faults.app", "beat", "--schedule", str(world.folder / "schedule")],
    )
    monitoring.others.append(beat)
    monitoring.watch("beat", beat)
    eventually(lambda: monitoring.value("celery_beat_tick_age_seconds"), "a healthy beat")
    return beat


def test_a_healthy_stack_raises_nothing(world: World, monitoring: Monitoring) -> None:
    """Nothing happens, under load, but the alert that always fires."""
    start_worker(world, monitoring)
    start_beat(world, monitoring, "one two")
    monitoring.fires("DeadMansSwitch")
    monitoring.forget()
    end = time.monotonic() + 45
    while time.monotonic() < end:
        world.send(seconds=0.05)
        time.sleep(0.1)
    assert monitoring.receiver.names <= {"DeadMansSwitch"}


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_worker_down(world: World, monitoring: Monitoring, worker: FaultWorker, how: str) -> None:
    """A worker is stopped in place, or killed, while messages wait for it."""
    os.kill(worker.process.pid, signal.SIGSTOP) if how == "stopped" else worker.kill()
    for _ in range(3):
        world.send()
    monitoring.fires("WorkerDown")
    eventually(
        lambda: monitoring.value('ALERTS{alertname="NoWorkerForQueue",alertstate="firing"}'), "the rest"
    )
    assert "NoWorkerForQueue" not in monitoring.receiver.names
    if how == "stopped":
        os.kill(worker.process.pid, signal.SIGCONT)
    else:
        start_worker(world, monitoring, port=worker.port)
    monitoring.resolves("WorkerDown")


def test_worker_wedged(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """The main thread of a worker waits for a lock that is never free."""
    os.kill(worker.process.pid, signal.SIGUSR1)
    world.send()
    monitoring.fires("WorkerWedged", silently=("NoWorkerForQueue", "QueueTooOld"))
    worker.kill()
    start_worker(world, monitoring, port=worker.port)
    monitoring.resolves("WorkerWedged")


def test_worker_deaf(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """The broker forgets that a worker takes tasks, and Celery does not notice."""
    worker.deafen()
    world.send()
    monitoring.fires("WorkerDeaf", silently=("QueueTooOld",))
    worker.kill()
    start_worker(world, monitoring, port=worker.port)
    monitoring.resolves("WorkerDeaf")


def test_worker_restarts(world: World, monitoring: Monitoring) -> None:
    """A worker is killed and started again, four times."""
    worker = start_worker(world, monitoring)
    for _ in range(4):
        worker.kill()
        worker = start_worker(world, monitoring, port=worker.port)
    monitoring.fires("WorkerRestarts")
    monitoring.resolves("WorkerRestarts")


def test_no_worker_for_queue(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Somebody tells the only worker to take no more from a queue."""
    with app.connection_for_write(world.broker.url) as connection:
        app.control.cancel_consumer("celery", destination=[worker.node], reply=True, connection=connection)
    world.send()
    monitoring.fires("NoWorkerForQueue", silently=("QueueTooOld",))
    worker.consume("celery", world.broker.url)
    monitoring.resolves("NoWorkerForQueue")


def test_queue_too_old(world: World, monitoring: Monitoring) -> None:
    """Two long tasks keep a worker busy, while others wait."""
    start_worker(world, monitoring, "--prefetch-multiplier", "1", patient=True)
    for _ in range(2):
        world.send(seconds=30, options=LONGER)
    for _ in range(3):
        world.send()
    monitoring.fires("QueueTooOld")
    monitoring.resolves("QueueTooOld")


def test_backlog_grows(world: World, monitoring: Monitoring) -> None:
    """No task begins, and ever more are sent."""
    start_worker(world, monitoring, "--prefetch-multiplier", "1", patient=True)
    for _ in range(2):
        world.send(seconds=45, options=LONGER)
    with repeatedly(world.send):
        monitoring.fires("BacklogGrows")
    monitoring.resolves("BacklogGrows")


def test_tasks_fail(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Tasks fail, and become dead letters."""
    with repeatedly(lambda: world.send("read_row")):
        monitoring.fires("TasksFail")
        monitoring.fires("DeadLetters")
    monitoring.resolves("TasksFail")
    with psycopg.connect(database_url()) as connection:
        connection.execute("DELETE FROM reliability_deadletter")
    monitoring.resolves("DeadLetters")


def test_tasks_retry(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Tasks meet an error that may pass."""
    with repeatedly(lambda: world.send("unlucky")):
        monitoring.fires("TasksRetry")
    monitoring.resolves("TasksRetry")


def test_tasks_lost(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """The process that runs a task is killed."""
    world.kill_child(world.send(seconds=2))
    monitoring.fires("TasksLost")
    monitoring.resolves("TasksLost")


def test_tasks_expire(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Tasks wait behind others until nobody wants them any more."""
    for _ in range(2):
        world.send(seconds=4, options=LONGER)
    for _ in range(3):
        world.send(options={"expires": 1})
    monitoring.fires("TasksExpire")
    monitoring.resolves("TasksExpire")


def test_task_near_its_limit(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """A task takes nearly all the time that it may."""
    world.send(seconds=5.4, options={"time_limit": 6, "soft_time_limit": 5.8})
    monitoring.fires("TaskNearItsLimit")
    monitoring.resolves("TaskNearItsLimit")


def test_task_hangs(world: World, monitoring: Monitoring) -> None:
    """A task runs past its limit, in a pool that cannot stop it."""
    start_worker(world, monitoring, "--pool", "threads")
    world.send(seconds=15, options={"time_limit": 2, "soft_time_limit": 1})
    monitoring.fires("TaskHangs")
    monitoring.resolves("TaskHangs")


def test_redelivery_storm(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Much of what the worker gets has been delivered before."""
    with repeatedly(lambda: world.send("come_back", times=8)):
        monitoring.fires("RedeliveryStorm")
    monitoring.resolves("RedeliveryStorm")


def test_redelivered_again_and_again(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """One message comes back each time."""
    world.send("come_back", times=12, pause=0.5)
    monitoring.fires("RedeliveredAgainAndAgain")
    monitoring.resolves("RedeliveredAgainAndAgain")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_beat_down(world: World, monitoring: Monitoring, worker: FaultWorker, how: str) -> None:
    """Beat is stopped in place, or killed."""
    beat = start_beat(world, monitoring, "one")
    os.kill(beat.process.pid, signal.SIGSTOP) if how == "stopped" else beat.kill()
    monitoring.fires("BeatDown")
    if how == "stopped":
        os.kill(beat.process.pid, signal.SIGCONT)
    else:
        start_beat(world, monitoring, "one", port=beat.port)
    monitoring.resolves("BeatDown")


def test_beat_silent(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Beat's main thread waits for a lock that is never free."""
    beat = start_beat(world, monitoring, "one", imports=["tests.wedge"])
    os.kill(beat.process.pid, signal.SIGUSR1)
    monitoring.fires("BeatSilent", silently=("ScheduleEntryLate",))
    beat.kill()
    start_beat(world, monitoring, "one", port=beat.port)
    monitoring.resolves("BeatSilent")


def test_schedule_entry_late(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """Each send takes seconds, so that the entries wait for each other."""
    beat = start_beat(world, monitoring, "one two three", imports=["faults.slow"])
    monitoring.fires("ScheduleEntryLate")
    beat.kill()
    start_beat(world, monitoring, "one two three", port=beat.port)
    monitoring.resolves("ScheduleEntryLate")


def test_schedule_entry_fails(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """An entry of the schedule names a queue that is none."""
    beat = start_beat(world, monitoring, "one", queue="nowhere")
    monitoring.fires("ScheduleEntryFails")
    beat.kill()
    start_beat(world, monitoring, "one", port=beat.port)
    monitoring.resolves("ScheduleEntryFails")


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_broker_down(world: World, monitoring: Monitoring, how: str) -> None:
    """The broker is killed, or accepts and never answers, under load."""
    worker = start_worker(world, monitoring)  # not WEDGE, which a call of two seconds makes sick
    start_beat(world, monitoring, "one")
    monitoring.forget()
    with away(world.broker, how):
        monitoring.fires("BrokerDown")
        assert "WorkerDown" not in monitoring.receiver.names
        assert json.loads(worker.get("/livez")[1])["loop_age"] < LIMIT / 4
        # A send to a broker that is frozen takes beat six seconds, which the faster clock takes for minutes.
        assert monitoring.receiver.names <= {"BrokerDown", "DeadMansSwitch", "BeatSilent"}
    monitoring.resolves("BrokerDown")
    # The outage is over, and the runs that beat missed meanwhile are news.
    expected = {"BrokerDown", "DeadMansSwitch", "BeatSilent", "ScheduleEntryFails"}
    if how == "frozen":
        expected.add("ScheduleEntryLate")  # by those six seconds
    assert monitoring.receiver.names <= expected


def test_database_down(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """PostgreSQL is stopped."""
    world.database.stop()
    try:
        monitoring.fires("DatabaseDown")
    finally:
        world.database.start()
    monitoring.resolves("DatabaseDown")


def test_database_connections(world: World, monitoring: Monitoring) -> None:
    """Somebody opens most of the connections that PostgreSQL grants."""
    with ExitStack() as repair:
        for _ in range(85):
            repair.enter_context(psycopg.connect(database_url()))
        monitoring.fires("DatabaseConnections")
    monitoring.resolves("DatabaseConnections")


def test_exporter_down(world: World, monitoring: Monitoring) -> None:
    """The exporter is killed."""
    eventually(lambda: monitoring.value('up{job="exporter"} == 1'), "a healthy exporter")
    port = monitoring.exporter.port
    monitoring.exporter.kill()
    monitoring.fires("ExporterDown", silently=("BrokerDown",))
    monitoring.start_exporter(METRICS_PORT=str(port))
    monitoring.resolves("ExporterDown")


def test_certificate_expires(world: World, monitoring: Monitoring, tmp_path: Path) -> None:
    """A server shows a certificate that expires in three days, then another one."""
    monitoring.exporter.kill()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with tls_server() as (port, show):
        show(authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=3)))
        monitoring.start_exporter(
            CERTIFICATES=f"localhost:{port}", SSL_CERT_FILE=str(tmp_path / "authority.pem")
        )
        monitoring.fires("CertificateExpires")
        show(authority.issue_cert("localhost"))
        monitoring.resolves("CertificateExpires")


@pytest.mark.redis
def test_broker_memory(world: World, monitoring: Monitoring) -> None:
    """Redis has little more memory than it uses."""
    with world.broker.channel() as channel:
        used = channel.client.info("memory")["used_memory"]
    with configured(world, "maxmemory", used * 10 // 9):
        monitoring.fires("BrokerMemory")
    monitoring.resolves("BrokerMemory")


@pytest.mark.redis
def test_broker_evicts(world: World, monitoring: Monitoring) -> None:
    """Redis has the policy of a cache, and is full."""
    with evicting(world.broker):
        monitoring.fires("BrokerEvicts")
        fill(world.broker)
        monitoring_sees = "increase(celery_broker_evicted_keys_total[15s]) > 0"
        eventually(lambda: monitoring.value(monitoring_sees), "the evictions")
        assert "BrokerHasEvicted" not in monitoring.receiver.names
    monitoring.resolves("BrokerEvicts")


@pytest.mark.redis
def test_broker_has_evicted(world: World, monitoring: Monitoring) -> None:
    """Redis has evicted keys, and its policy is right again when somebody looks."""
    eventually(lambda: monitoring.value("celery_broker_evicted_keys_total"), "the exporter")
    with evicting(world.broker):
        fill(world.broker)
        keep_everything(world.broker)
    monitoring.fires("BrokerHasEvicted")
    monitoring.resolves("BrokerHasEvicted")


@pytest.mark.redis
def test_broker_forgets(world: World, monitoring: Monitoring) -> None:
    """Redis does not write its messages to disk."""
    with configured(world, "appendonly", "no"):
        monitoring.fires("BrokerForgets")
    monitoring.resolves("BrokerForgets")


@pytest.mark.redis
def test_broker_cannot_save(world: World, monitoring: Monitoring) -> None:
    """Something is in the way of the file that Redis writes."""
    with world.broker.channel() as channel:
        folder, name = (channel.client.config_get(what)[what] for what in ("dir", "dbfilename"))
        obstacle = Path(folder) / name
        obstacle.unlink(missing_ok=True)
        obstacle.mkdir()
        try:
            channel.client.bgsave()
            monitoring.fires("BrokerCannotSave", silently=("BrokerDown",))
        finally:
            obstacle.rmdir()
            channel.client.bgsave()
        monitoring.resolves("BrokerCannotSave")


@pytest.mark.redis
def test_broker_connections(world: World, monitoring: Monitoring) -> None:
    """Clients use most of the connections that Redis grants."""
    with world.broker.channel() as channel:
        used = channel.client.info("clients")["connected_clients"]
        before = channel.client.config_get("maxclients")["maxclients"]
        channel.client.config_set("maxclients", used + 1)
        try:
            monitoring.fires("BrokerConnections")
        finally:  # over this connection: there may be room for no other
            channel.client.config_set("maxclients", before)
        monitoring.resolves("BrokerConnections")


@pytest.mark.redis
def test_parked_messages(world: World, monitoring: Monitoring) -> None:
    """A worker is killed while it runs a task, and does not come back; another one is idle."""
    doomed = world.start_worker("--prefetch-multiplier", "4")
    keys = [world.send(seconds=20, options=LONGER) for _ in range(2)]
    for key in keys:
        effects.until_begun(key)
    start_worker(world, monitoring)
    doomed.kill()
    monitoring.fires("ParkedMessages")
    monitoring.resolves("ParkedMessages")


@pytest.mark.redis
def test_held_for_too_long(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """A task runs for longer than the visibility timeout was made for."""
    world.send(seconds=15, options=LONGER)
    monitoring.fires("HeldForTooLong")
    monitoring.resolves("HeldForTooLong")


@pytest.mark.rabbitmq
def test_broker_alarm(world: World, monitoring: Monitoring, worker: FaultWorker) -> None:
    """RabbitMQ has less memory than it uses."""
    with limited_memory(world, "0.0"):
        monitoring.fires("BrokerAlarm", silently=("BrokerMemory",))
    monitoring.resolves("BrokerAlarm")


@pytest.mark.rabbitmq
def test_broker_memory_of_rabbitmq(world: World, monitoring: Monitoring) -> None:
    """RabbitMQ has little more memory than it uses."""
    eventually(lambda: monitoring.value("rabbitmq_process_resident_memory_bytes"), "its figures")
    (found,) = monitoring.value("rabbitmq_process_resident_memory_bytes")
    with limited_memory(world, f"{{absolute, {int(float(found['value'][1]) * 1.12)}}}"):
        monitoring.fires("BrokerMemory")
    monitoring.resolves("BrokerMemory")


@pytest.mark.rabbitmq
def test_broker_metrics_missing(world: World, monitoring: Monitoring) -> None:
    """RabbitMQ's own figures are not to be had."""
    eventually(lambda: monitoring.value('up{job="broker"} == 1'), "its figures")
    monitoring.watch("broker")
    monitoring.fires("BrokerMetricsMissing")
    monitoring.watch_broker()
    monitoring.resolves("BrokerMetricsMissing")


@pytest.mark.rabbitmq
def test_parked_messages_of_rabbitmq(world: World, monitoring: Monitoring) -> None:
    """Somebody takes messages, does not acknowledge them, and is no worker."""
    world.start_worker().kill()  # it has declared the queues
    world.send()
    with world.broker.channel() as channel:
        eventually(lambda: channel.basic_get("celery"), "the message")
        monitoring.fires("ParkedMessages")
    start_worker(world, monitoring)
    monitoring.resolves("ParkedMessages")


@contextmanager
def limited_memory(world: World, limit: str) -> Iterator[None]:
    """Have RabbitMQ run with another limit for its memory, in Erlang's words."""
    change = "vm_memory_monitor:set_vm_memory_high_watermark({})."
    rabbitmqctl(world.broker, change.format(limit))
    try:
        yield
    finally:
        rabbitmqctl(world.broker, change.format("0.4"))


@contextmanager
def repeatedly(send: Any) -> Iterator[None]:
    """Send something ten times a second meanwhile."""
    enough = threading.Event()

    def go_on() -> None:
        while not enough.wait(0.1):
            send()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@contextmanager
def configured(world: World, name: str, value: Any) -> Iterator[None]:
    """Have Redis run with another value of this setting."""
    with world.broker.channel() as channel:
        before = channel.client.config_get(name)[name]
        channel.client.config_set(name, str(value))
    try:
        yield
    finally:
        with world.broker.channel() as channel:
            channel.client.config_set(name, before)


@contextmanager
def tls_server() -> Iterator[tuple[int, Any]]:
    """Run a server with TLS; give its port, and a function that changes what it shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = ThreadingHTTPServer(("localhost", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, lambda certificate: certificate.configure_cert(context)
    finally:
        server.shutdown()
        server.server_close()
