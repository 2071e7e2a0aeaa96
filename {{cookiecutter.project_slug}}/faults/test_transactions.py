"""A task is sent inside a transaction: what it needs is there when it runs, or it never runs."""

import pytest

from faults import effects
from faults.world import World

pytestmark = pytest.mark.promise("send_after_commit")


def test_a_task_of_a_rolled_back_transaction_never_runs(world: World) -> None:
    """The transaction in which a task was sent rolls back."""
    world.start_worker()
    world.fault_happens()
    key = world.send("read_row", way="roll_back")
    assert "row" not in effects.events(key), "it was not rolled back"
    next_one = world.send()
    world.until(lambda: "finished" in effects.events(next_one), "the next task runs")
    world.seen = "it ran all the same" if effects.events(key) else ""
    world.everything_runs(but=[key])


def test_a_task_finds_what_its_transaction_wrote(world: World) -> None:
    """The transaction in which a task is sent takes another second to commit."""
    world.start_worker()
    world.fault_happens()
    key = world.send("read_row", way="commit_slowly")
    assert "row" in effects.events(key), "it was not committed"
    world.everything_runs()


def test_a_task_is_sent_although_an_earlier_hook_fails(world: World) -> None:
    """Another hook of the same commit raises before the task is sent."""
    world.start_worker()
    world.fault_happens()
    key = world.send("read_row", way="commit_after_a_failing_hook")
    assert "hook failed" in effects.events(key)
    world.everything_runs()
