"""The broker is away for a minute: no probe restarts a worker, and tasks run soon after it is back."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import run

import pytest

from dev import BASE_DIR
from faults import effects
from faults.servers import away
from faults.working import FaultWorker
from faults.world import World
from tests.harness import eventually
from tests.relay import Relay, relay

OUTAGE = float(os.environ.get("OUTAGE", "60"))  # seconds; longer than a loop may stand still
RESUMED = 15  # seconds from the broker's return to the run of a task
HOW = ["killed", "frozen", *(["vanished"] if OUTAGE > 60 else [])]  # CI has no third minute for it
EVERY = 5  # seconds between two probes; more often than any manifest asks


@contextmanager
def probed(worker: FaultWorker) -> Iterator[list[int]]:
    """Ask for the worker's liveness meanwhile, as a platform does; give the statuses of the probes."""
    statuses: list[int] = []
    enough = threading.Event()

    def ask() -> None:
        command = [sys.executable, "-S", "-E", "health/ask.py", "livez", str(worker.port)]
        while not enough.wait(EVERY):
            statuses.append(run(command, cwd=BASE_DIR, capture_output=True).returncode)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        enough.set()
        thread.join()


@pytest.mark.promise("reconnect")
@pytest.mark.parametrize("how", HOW)
def test_an_outage_restarts_nobody(world: World, how: str) -> None:
    """The broker is away for longer than an event loop may stand still."""
    with relay(world.broker.url) as way:
        survive(world, way, how)


def survive(world: World, way: Relay, how: str) -> None:
    """Have a worker bear it, which reaches its broker this way."""
    worker = world.start_worker(environment={"BROKER_URL": way.url} if how == "vanished" else {})
    first = world.send()
    world.until(lambda: "finished" in effects.events(first), "the worker works")
    with probed(worker) as statuses:
        with way.vanished() if how == "vanished" else away(world.broker, how):
            end = time.monotonic() + OUTAGE
            eventually(lambda: worker.status("/readyz") == 503, "the worker to miss its broker")
            while time.monotonic() < end:
                assert worker.is_alive()
                time.sleep(1)
        world.fault_happens()
        key = world.send()
        world.until(lambda: "finished" in effects.events(key), "the task to run")
        resumed = time.time() - world.moment
    assert len(statuses) >= OUTAGE // EVERY - 2
    world.seen = (
        f"{how}: {len(statuses)} probes, {sum(map(bool, statuses))} failed; a task ran {resumed:.1f} s after"
    )
    world.promise(not any(statuses), "a probe would have restarted the worker")
    world.promise(resumed < RESUMED, f"resumed after {resumed:.1f} s")
    world.everything_runs()
