"""Whoever can write to the broker writes what no Celery would."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from faults import effects, envelopes, malformed
from faults.world import World

pytestmark = pytest.mark.promise("dead_letters")


def test_a_message_that_nobody_can_read_is_kept(world: World) -> None:
    """A message that is cut off is put on the queue, before a task."""
    world.start_worker()
    world.fault_happens()
    world.put(malformed.Malformed("", b'[[], {"key":', headers=malformed.good_headers(random.Random(1))))
    world.send()
    world.everything_runs(letters=1)
    world.promise(effects.dead_letters("undecodable") == 1, "the reason is wrong")


def test_a_pickle_is_kept(world: World) -> None:
    """A message in Python's pickle is put on the queue, before a task."""
    trap = world.folder / "trap"
    world.start_worker(environment={"C_FORCE_ROOT": "1"})  # as root Celery refuses to start with pickle on
    world.fault_happens()
    world.put(next(malformed.traps(random.Random(1), trap)))
    world.send()
    world.everything_runs(letters=1)
    world.promise(not trap.exists(), "it was executed")


def test_malformed_messages_stop_nothing(world: World, tmp_path: Path) -> None:
    """1000 malformed messages are put on the queue, among 50 tasks."""
    trap = tmp_path / "trap"
    flood(world, malformed.messages(chance(world), 1000, trap))
    world.promise(not trap.exists() and not effects.events("malformed"), f"one was executed, {world.seen}")


@pytest.mark.redis
def test_malformed_envelopes_stop_nothing(world: World) -> None:
    """200 times something that is none of kombu's messages is put on the queue, among 10 tasks."""
    seeded = chance(world)
    flood(world, [envelopes.bad_envelope(seeded) for _ in range(200)])


def chance(world: World) -> random.Random:
    """Return a source of chance; the environment variable FAULTS_SEED repeats what the table shows."""
    seed = os.environ.get("FAULTS_SEED") or str(random.randrange(10**6))
    world.seen = f"FAULTS_SEED={seed}"
    return random.Random(seed)


def flood(world: World, messages: Sequence[malformed.Malformed]) -> None:
    """Promise that each message becomes a dead letter, that the worker lives, and all tasks run."""
    worker = world.start_worker()
    world.fault_happens()
    for number, message in enumerate(messages):
        world.put(message)
        if number % 20 == 0:
            world.send()
    world.until(
        lambda: effects.dead_letters() >= len(messages) or not worker.is_alive(), "each becomes a dead letter"
    )
    world.promise(worker.is_alive(), f"the worker ended, {world.seen}")
    world.everything_runs(letters=len(messages))
