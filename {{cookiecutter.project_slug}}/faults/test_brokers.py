"""The broker is killed and started again, with the data that it had on disk."""

import pytest

from faults import effects
from faults.servers import frozen
from faults.tuning import evicting, fill, impatient, keep_everything
from faults.working import tasks_of
from faults.world import World
from tests.harness import eventually

LONGER = {"time_limit": 30, "soft_time_limit": 25}  # than a busy machine takes to kill the broker


def test_idle_worker_survives_a_restart_of_the_broker(world: World) -> None:
    """The broker is killed and started again while the worker is idle."""
    world.start_worker()
    first = world.send()
    world.until(lambda: "finished" in effects.events(first), "the worker works")
    eventually(lambda: tasks_of(world.workers, world.broker.url) == 0, "the worker is idle")
    world.fault_happens()
    world.broker.kill()
    world.broker.start()
    world.send()
    world.everything_runs()


@pytest.mark.promise("reconnect")
def test_half_busy_worker_survives_a_restart_of_the_broker(world: World) -> None:
    """The broker is killed and started again while a worker runs one task and could run another."""
    world.start_worker()
    key = world.send(seconds=4, options=LONGER)
    effects.until_begun(key)
    world.fault_happens()
    world.broker.kill()
    assert effects.is_unfinished(key), "it finished before the broker was killed"
    world.broker.start()
    world.send()
    world.everything_runs()


def test_running_tasks_survive_a_restart_of_the_broker(world: World) -> None:
    """The broker is killed and started again while two tasks run."""
    world.start_worker()
    keys = [world.send(seconds=4, options=LONGER), world.send(seconds=4, options=LONGER)]
    for key in keys:
        effects.until_begun(key)
    world.fault_happens()
    world.broker.kill()
    assert all(map(effects.is_unfinished, keys)), "they finished before the broker was killed"
    world.broker.start()
    row = world.everything_runs()
    world.promise(not row.twice, "a task finished twice")
    # Redis still has the messages: the tasks run on, and are acknowledged later. RabbitMQ gives the messages
    # to the next one, and the first runs are stopped.
    begun = [effects.events(key).count("begun") for key in keys]
    world.promise(begun == ([1, 1] if world.broker.name == "redis" else [2, 2]), f"begun {begun} times")


def test_waiting_tasks_survive_a_restart_of_the_broker(world: World) -> None:
    """The broker is killed and started again while a worker runs two tasks and holds six in reserve."""
    world.start_worker("--prefetch-multiplier", "4")
    running = [world.send(seconds=4, options=LONGER), world.send(seconds=4, options=LONGER)]
    for key in running:
        effects.until_begun(key)
    waiting = [world.send() for _ in range(6)]
    eventually(lambda: not world.broker.ready(), "the worker holds them all")
    world.fault_happens()
    world.broker.kill()
    assert all(map(effects.is_unfinished, running)), "they finished before the broker was killed"
    assert not any(map(effects.events, waiting)), "they did not wait"
    world.broker.start()
    world.send()
    world.everything_runs()


def sent_tasks_survive_a_restart(world: World) -> None:
    """Kill the broker and start it again; then there is a worker."""
    world.fault_happens()
    world.broker.kill()
    world.broker.start()
    world.start_worker()
    world.everything_runs()


def test_waiting_tasks_survive_a_restart_of_the_broker_without_a_worker(world: World) -> None:
    """The broker is killed and started again while tasks wait and no worker runs."""
    for _ in range(5):
        world.send()
    assert world.broker.held() == 5
    sent_tasks_survive_a_restart(world)


@pytest.mark.rabbitmq
def test_what_was_sent_without_an_error_survives_a_killed_broker(world: World) -> None:
    """The broker is killed as soon as 20 tasks were sent without an error."""
    world.start_worker().kill()
    for _ in range(20):
        world.send()
    sent_tasks_survive_a_restart(world)


@pytest.mark.rabbitmq
def test_what_a_frozen_broker_did_not_take_is_an_error(world: World) -> None:
    """The broker freezes, a task is sent, and the broker is killed."""
    world.start_worker().kill()
    world.send()
    with frozen(world.broker.server):
        sent = world.try_to_send()
        world.seen = f"{sent.error or 'no error'} after {sent.seconds:.1f} s"
        world.fault_happens()
        world.broker.kill()
        world.broker.start()
    world.start_worker()
    world.everything_runs()


@pytest.mark.rabbitmq
def test_a_task_survives_the_consumer_timeout(world: World) -> None:
    """A task takes 8 s, and RabbitMQ takes back what is not acknowledged within 3 s."""
    with impatient(world.broker, 3):
        worker = world.start_worker()
        world.send(seconds=8, again=1, options={"time_limit": 30, "soft_time_limit": 25})
        world.fault_happens()
        if world.profile != "defaults":  # they have acknowledged it before it ran
            worker.wait_for("PRECONDITION_FAILED")
        world.send()
        world.everything_runs()


@pytest.mark.redis
@pytest.mark.promise("check_broker")
def test_tasks_survive_a_full_broker(world: World) -> None:
    """Redis has the eviction policy of a cache, and a cache fills it."""
    with evicting(world.broker):
        worker = world.start_worker(wait=False)
        world.until(lambda: "ready." in worker.log.read_text() or not worker.is_alive(), "the worker starts")
        if not worker.is_alive():
            world.seen = "the worker refused to start"
            assert "allkeys-lru" in worker.log.read_text()
            keep_everything(world.broker)
        world.promise(not worker.is_alive(), "the worker accepts a broker that loses tasks")
        worker.kill()
        for _ in range(50):
            world.send()
        fill(world.broker)
    world.fault_happens()
    world.start_worker()
    world.everything_runs()
