"""Processes are killed, asked to stop, or hang."""

import time

import pytest

from faults import effects
from faults.memory import limited_memory
from faults.processes import is_alive
from faults.world import World
from tests.harness import eventually

# Limits above those of the tests: there the hard one would come before the pool has noticed a lost process.
LONGER = {"time_limit": 30, "soft_time_limit": 25}


def test_task_survives_a_killed_child(world: World) -> None:
    """A pool process is killed while it runs a task."""
    world.start_worker()
    key = world.send(seconds=1.5, options=LONGER)
    world.kill_child(key)
    world.everything_runs()


def test_task_survives_a_killed_worker(world: World) -> None:
    """A worker is killed, with its processes, while it runs a task."""
    worker = world.start_worker()
    key = world.send(seconds=1.5)
    world.kill_worker(worker, key)
    world.start_worker()
    world.everything_runs()


def test_task_finishes_while_its_worker_stops(world: World) -> None:
    """SIGTERM comes while a task runs that has time enough to finish."""
    worker = world.start_worker()
    key = world.send(seconds=1.5)
    effects.until_begun(key)
    world.fault_happens()
    worker.terminate()
    assert effects.is_unfinished(key), "it finished before the signal"
    world.until(lambda: not worker.is_alive(), "the worker has ended")
    world.seen = f"the worker ended after {time.time() - world.moment:.1f} s"
    world.everything_runs()
    world.promise(effects.events(key) == ["begun", "finished"], "interrupted")


def test_longer_task_is_given_back_at_sigterm(world: World) -> None:
    """SIGTERM comes while a task of 20 s runs, and SIGKILL 10 s later."""
    worker = world.start_worker()
    key = world.send(seconds=20, again=1, options=LONGER)
    effects.until_begun(key)
    world.fault_happens()
    worker.terminate()
    world.start_worker(wait=False)
    while worker.is_alive() and time.time() < world.moment + 10:
        time.sleep(0.05)
    ended = "by SIGKILL" if worker.is_alive() else f"after {time.time() - world.moment:.1f} s"
    worker.kill()
    world.seen = f"the worker ended {ended}"
    assert effects.events(key)[:2] != ["begun", "finished"], "the task was not longer than the grace"
    world.everything_runs()
    world.promise("SIGKILL" not in ended, ended)


def test_task_survives_a_wedged_worker(world: World) -> None:
    """The main process of a worker hangs while a task runs and others wait; another worker is there."""
    wedged = world.start_worker("-c", "1")
    other = world.start_worker("-c", "1", "-Q", "long")
    key = world.send(seconds=1.5)
    effects.until_begun(key)
    waiting = [world.send() for _ in range(10)]
    world.patience = max(world.patience, 40)  # RabbitMQ misses two heartbeats of 10 s first
    world.fault_happens()
    wedged.freeze()
    assert effects.is_unfinished(key), "it finished before its worker hung"
    other.consume("celery", world.broker.url)
    # On RabbitMQ a worker has seven tasks in reserve: they wait until the broker misses its heartbeats.
    free = len(waiting) - {"redis": 0, "rabbitmq": 7}[world.broker.name]
    world.until(
        lambda: len(effects.finished().keys() & set(waiting)) >= free, "the other worker runs what waits"
    )
    world.promise(time.time() < world.moment + 6, "what waits was with the worker that hangs")
    assert wedged.is_alive()
    world.until(lambda: effects.events(key).count("begun") > 1, "the unacknowledged task comes back")
    world.everything_runs()


def test_task_survives_the_oom_killer(world: World) -> None:
    """The kernel kills a pool process for its memory (a real cgroup limit)."""
    worker = world.start_worker()
    children = worker.children()
    with limited_memory(worker.process.pid, *children) as killed_by_kernel:
        key = world.send("eat_memory", megabytes=1000, options=LONGER)
        pid = effects.until_begun(key)
        world.fault_happens()
        assert pid in children
        eventually(killed_by_kernel, "the kernel has killed a process")
        eventually(lambda: not is_alive(pid), "it was the child")
        assert worker.is_alive()
        world.everything_runs()


@pytest.mark.promise("dead_letters")
def test_a_task_that_kills_its_process_each_time_is_given_up(world: World) -> None:
    """A task kills the process that runs it, each time."""
    world.start_worker("-c", "1")
    world.fault_happens()
    key = world.send("die")
    world.send()
    world.everything_runs(letters=1)
    world.promise(effects.dead_letters("worker_lost") == 1, "the reason is wrong")
    world.seen = f"begun {effects.events(key).count('begun')} times"


def test_a_process_that_leaks_is_replaced(world: World) -> None:
    """A task leaks 300 MB, and then another runs; a process may have 200 MB."""
    world.start_worker("-c", "1", environment={"WORKER_MAX_MEMORY_MB": "200"})
    world.fault_happens()
    leak, next_one = world.send("leak", megabytes=300), world.send()
    world.until(lambda: "finished" in effects.events(next_one), "the next task runs")
    goes_on = effects.pid_of(leak) == effects.pid_of(next_one)
    world.seen = "the process that leaks goes on" if goes_on else ""
    world.everything_runs()
    world.promise(not goes_on, world.seen)
