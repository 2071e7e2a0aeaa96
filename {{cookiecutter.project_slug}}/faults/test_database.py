"""PostgreSQL is restarted under a worker."""

from faults import effects
from faults.world import World


def test_tasks_survive_a_restart_of_the_database(world: World) -> None:
    """PostgreSQL is restarted while a task runs and another one begins."""
    worker = world.start_worker()
    running = world.send(seconds=1.5)
    effects.until_begun(running)
    assert effects.is_unfinished(running), "it finished before the database stopped"
    world.database.stop()
    world.fault_happens()
    world.send()
    worker.wait_for("OperationalError")
    world.database.start()
    world.everything_runs()
