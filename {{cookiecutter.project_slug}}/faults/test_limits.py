"""Tasks hang."""

import pytest

from faults import effects
from faults.world import World

pytestmark = pytest.mark.promise("dead_letters")


def test_a_hung_task_does_not_stop_the_worker(world: World) -> None:
    """A task hangs in a worker with one process: the soft limit."""
    worker = world.start_worker("-c", "1")
    key = world.send("hang")
    effects.until_begun(key)
    world.fault_happens()
    world.send()
    world.everything_runs(letters=1)
    world.promise("SoftTimeLimitExceeded" in worker.log.read_text(), "it was not the soft limit")
    world.promise(effects.dead_letters("time_limit") == 1, "it became no dead letter")


def test_a_task_that_ignores_the_soft_limit_does_not_stop_the_worker(world: World) -> None:
    """A task hangs and ignores the soft limit, in a worker with one process: the hard limit."""
    worker = world.start_worker("-c", "1")
    key = world.send("ignore_soft_limit")
    pid = effects.until_begun(key)
    world.fault_happens()
    next_one = world.send()
    world.everything_runs(letters=1)
    world.promise("Hard time limit" in worker.log.read_text(), "it was not the hard limit")
    world.promise(effects.dead_letters("time_limit") == 1, "it became no dead letter")
    world.promise(effects.pid_of(next_one) != pid, "the process that hung was not replaced")
