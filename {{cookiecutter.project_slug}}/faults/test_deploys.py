"""Versions of the code meet, and workers are replaced while they work."""

import os
import time

import pytest

from faults import effects
from faults.working import FaultWorker, tasks_of
from faults.world import World

OLD = {"FAULTS_CODE": "faults.tasks,faults.older"}
NEW = {"FAULTS_CODE": "faults.tasks,faults.newer"}


@pytest.mark.promise("unknown_tasks")
def test_an_unknown_task_waits_for_a_worker_that_knows_it(world: World) -> None:
    """New code sends a task that the only worker does not know; then a new worker takes its place."""
    old = world.start_worker(environment=OLD)
    world.start_sender(NEW)
    world.send("welcome")
    old.wait_for("faults.tasks.welcome")
    replace(world, old)


@pytest.mark.promise("unknown_tasks")
def test_a_new_argument_waits_for_a_worker_that_takes_it(world: World) -> None:
    """New code sends an argument that the only worker does not take; then a new worker takes its place."""
    old = world.start_worker(environment=OLD)
    world.start_sender(NEW)
    key = world.send("greet", language="fr")
    old.wait_for("language")
    assert not effects.events(key)
    replace(world, old)


def replace(world: World, old: FaultWorker) -> None:
    """Promise that all runs once the old worker has given way to a new one."""
    world.fault_happens()
    world.start_worker(environment=NEW)
    old.terminate()
    world.everything_runs()


@pytest.mark.promise("unknown_tasks")
def test_two_versions_work_side_by_side(world: World) -> None:
    """Old and new code send, old and new workers work, at the same time."""
    world.patience *= 3  # every five seconds chance decides which of the two gets a task
    workers = [world.start_worker(environment=code) for code in (OLD, NEW)]
    world.fault_happens()
    for code, task in ((OLD, "say_farewell"), (NEW, "welcome")):
        world.start_sender(code)
        for _ in range(10):
            world.send(task)
    for worker, unknown in zip(workers, ("welcome", "say_farewell"), strict=True):
        worker.wait_for(f"faults.tasks.{unknown}")
    world.everything_runs()


@pytest.mark.promise("unknown_tasks")
def test_a_task_that_waits_for_a_newer_worker_survives_a_restart_of_the_broker(world: World) -> None:
    """The broker is killed and started again while a task waits for a worker that knows it."""
    old = world.start_worker(environment=OLD)
    world.start_sender(NEW)
    world.send("welcome")
    old.wait_for("faults.tasks.welcome")
    # On RabbitMQ the worker sends a copy and then acknowledges, in an event loop that answers after that.
    world.until(
        lambda: world.broker.held() == 1 and tasks_of(world.workers, world.broker.url) == 0,
        "there is one message, and the worker has acknowledged the one before",
    )
    world.fault_happens()
    world.broker.kill()
    world.broker.start()
    world.until(lambda: old.log.read_text().count("faults.tasks.welcome") > 1, "the worker has it again")
    world.start_worker(environment=NEW)
    row = world.everything_runs()
    world.promise(not row.twice, "it ran twice")


@pytest.mark.promise("dead_letters")
def test_a_task_that_nobody_knows_is_kept(world: World) -> None:
    """New code sends a task that no worker ever knows."""
    worker = world.start_worker(environment=OLD | {"PATIENCE": "1"})
    world.start_sender(NEW)
    world.fault_happens()
    world.send("welcome")
    worker.wait_for("faults.tasks.welcome")
    world.everything_runs(letters=1)
    world.promise(effects.dead_letters("unknown_task") == 1, "the reason is wrong")


@pytest.mark.skipif("LONG_STOP_GRACE" not in os.environ, reason="no process is granted a longer time here")
def test_a_long_task_finishes_in_spite_of_many_deploys(world: World) -> None:
    """Three deploys while a task of 15 s runs. SIGKILL comes 40 s after SIGTERM, for the compared 5 s."""
    grace = {"LONG_STOP_GRACE": "40"}
    patience = 5 if world.compared else 40  # where all workers are alike all have the time of the quickest
    queue = [] if world.compared else ["-Q", "long"]
    world.start_sender(grace)
    workers = [world.start_worker(*queue, environment=grace)]
    limits = {"time_limit": 30, "soft_time_limit": 27}
    key = world.send(seconds=15, options={} if world.compared else {"queue": "long", **limits})
    effects.until_begun(key)
    world.fault_happens()
    asked: list[float] = []
    while len(workers) < 4 or any(worker.is_alive() for worker in workers[:-1]):
        if len(workers) < 4:
            workers.append(world.start_worker(*queue, environment=grace))
            assert effects.is_unfinished(key), "the deploys came too late"
            workers[-2].terminate()
            asked.append(time.monotonic())
        for worker, moment in zip(workers, asked, strict=False):
            if worker.is_alive() and time.monotonic() > moment + patience:
                worker.kill()
        time.sleep(0.05)
    world.everything_runs()
    world.promise(effects.events(key) == ["begun", "finished"], "it was interrupted")
