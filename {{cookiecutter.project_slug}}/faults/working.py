"""Workers of the fault suite."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kombu import Connection

from config.celery import app
from faults.processes import is_frozen, processes
from tests.harness import Worker, eventually


class FaultWorker(Worker):
    """A worker with the settings of a profile, which can be frozen and told to stop."""

    def __init__(
        self, folder: Path, name: str, arguments: Sequence[str], environment: dict[str, str]
    ) -> None:
        """Start it, and do not wait; it knows the tasks of the modules in FAULTS_CODE."""
        self.node = f"{name}@here"
        code = environment.get("FAULTS_CODE", "faults.tasks")
        command = ["-A", "faults.app", "worker", "-n", self.node, "-c", "2", "-l", "INFO", "--include", code]
        command += ["--without-mingle"]  # it waits a second for other workers' lists of revoked tasks
        command += [] if "-Q" in arguments else ["-X", "long"]  # as all deployments do
        # The broker's URL is among the variables, so it does not wait: who starts it may have to end it.
        super().__init__(folder / f"{name}.log", environment, [*command, *arguments])

    def is_alive(self) -> bool:
        """Return whether its main process has not ended."""
        return self.process.poll() is None

    def terminate(self) -> None:
        """Send SIGTERM, as every platform does first."""
        assert self.is_alive(), "it ended before it was asked to"
        self.process.terminate()

    def consume(self, queue: str, broker_url: str) -> None:
        """Have it take tasks from this queue too, from now on."""
        with Connection(broker_url) as connection:
            answers = app.control.add_consumer(
                queue, destination=[self.node], reply=True, timeout=10, limit=1, connection=connection
            )
        assert answers, f"{self.node} does not answer"

    def freeze(self) -> None:
        """Stop its main process in place; its children go on."""
        self.process.send_signal(signal.SIGSTOP)
        eventually(lambda: is_frozen(self.process.pid), f"{self.node} is frozen")

    def children(self) -> list[int]:
        """Return the pids of its pool."""
        return [process.pid for process in processes() if process.parent == self.process.pid]


def tasks_of(workers: Sequence[FaultWorker], broker_url: str) -> int | None:
    """Return how many tasks the workers run, hold or delay; None when one that lives does not answer."""
    names = [worker.node for worker in workers if worker.is_alive() and not is_frozen(worker.process.pid)]
    if not names:
        return 0
    total = 0
    with Connection(broker_url) as connection:  # a new one: the broker may have been restarted
        inspect = app.control.inspect(names, timeout=2, limit=len(names), connection=connection)
        questions: list[Callable[[], Any]] = [inspect.active, inspect.reserved, inspect.scheduled]
        for question in questions:
            answers = question() or {}
            if len(answers) < len(names):
                return None
            total += sum(map(len, answers.values()))
    return total
