"""One scenario with one profile: its processes, what it sends, and what comes of it."""

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from dev.processes import Server
from faults import effects, profiles, results
from faults.broker import Broker
from faults.malformed import Malformed
from faults.processes import is_alive
from faults.sending import Sender, Sent
from faults.working import FaultWorker, tasks_of
from tests.harness import PATIENCE, eventually

LOOKED = 20  # seconds that the compared profiles and the mutants get to finish


class PromiseBrokenError(AssertionError):
    """The outcome is not what is promised. What proves that a fault happened raises plain AssertionErrors."""


class World:
    """What a scenario speaks to."""

    def __init__(self, fault: str, profile: str, servers: Mapping[str, Server], folder: Path) -> None:
        """`fault` is the scenario's line in the table. Begins with an empty broker and an empty table.

        `servers` has them by the variables that hold their URLs.
        """
        self.fault, self.profile, self.folder = fault, profile, folder
        self.broker = Broker(servers["BROKER_URL"])
        self.database, self.cache = servers["DATABASE_URL"], servers["CACHE_URL"]
        self.compared = profile in profiles.COMPARED
        self.patience = PATIENCE if profile == "ours" else LOOKED
        self.workers: list[FaultWorker] = []
        self.senders: list[Sender] = []
        self.sent: list[Sent] = []
        self.rows: list[results.Row] = []  # for the table
        self.moment = 0.0  # of the fault, in seconds since 1970; 0: nothing to recover from
        self.seen = ""  # goes to the table
        self.broker.empty()
        effects.clear()
        self.environment = {**profiles.environment(profile), "BROKER_URL": self.broker.url}
        self.start_sender()

    def start_sender(self, environment: Mapping[str, str] | None = None) -> None:
        """Start a process that sends from now on; the first one is there already."""
        log = self.folder / f"sender-{len(self.senders)}.log"
        self.senders.append(Sender(log, {**self.environment, **(environment or {})}))

    def start_worker(
        self, *arguments: str, environment: Mapping[str, str] | None = None, wait: bool = True
    ) -> FaultWorker:
        """Start a worker with two processes; return when it is ready, or with `wait=False` at once."""
        name = f"faults-{len(self.workers)}"
        worker = FaultWorker(self.folder, name, arguments, {**self.environment, **(environment or {})})
        self.workers.append(worker)
        if wait:
            worker.wait_for("ready.")
        return worker

    def try_to_send(
        self, task: str = "work", *, way: str = "send", options: dict[str, Any] | None = None, **kwargs: Any
    ) -> Sent:
        """Send a task of faults/tasks.py and return how that ended; it is counted as sent."""
        key = f"{task}-{len(self.sent)}"
        sent = self.senders[-1].order(key, task, way, options or {}, self.patience, **kwargs)
        self.sent.append(sent)
        return sent

    def send(self, task: str = "work", **options: Any) -> str:
        """Send a task and return its key; AssertionError when its sender got an error."""
        sent = self.try_to_send(task, **options)
        assert not sent.error, f"{sent.error}: {sent.text}"
        return sent.key

    def put(self, message: Malformed) -> None:
        """Put a message of whatever form straight on the queue; it is counted as sent."""
        self.broker.put(message)
        self.sent.append(Sent(f"message-{len(self.sent)}", "", "", "", 0))

    def fault_happens(self) -> None:
        """Start the clock of the recovery."""
        self.moment = time.time()

    def kill_child(self, key: str) -> None:
        """SIGKILL the process that runs this task; return when it is gone."""
        pid = effects.until_begun(key)
        self.fault_happens()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_alive(pid), f"process {pid} is gone")
        assert effects.is_unfinished(key), "it finished before its process was killed"

    def kill_worker(self, worker: FaultWorker, *running: str) -> None:
        """SIGKILL the worker and its children while these tasks run."""
        for key in running:
            effects.until_begun(key)
        self.fault_happens()
        worker.kill()
        for key in running:
            assert effects.is_unfinished(key), f"{key} finished before the worker was killed"

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Promise that the condition comes true in time."""
        deadline = time.monotonic() + self.patience
        while not (kept := condition()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.promise(kept, f"not within {self.patience} s: {what}")

    def promise(self, kept: object, what: str) -> None:
        """Raise PromiseBrokenError unless this is so; the compared profiles promise nothing."""
        if not kept and not self.compared:
            raise PromiseBrokenError(what)

    def everything_runs(self, *, but: Collection[str] = (), letters: int = 0) -> results.Row:
        """Promise that all that was sent and taken finishes, and add the outcome to the table.

        `but` are the keys that must not run; `letters` of the tasks become dead letters instead. Waits
        no longer once nothing is left that could run.
        """
        expected = {sent.key for sent in self.sent if not sent.error} - set(but)
        deadline = time.monotonic() + self.patience
        while len(expected - effects.finished().keys()) > letters or effects.dead_letters() < letters:
            if time.monotonic() > deadline or self._nothing_left():
                break
            time.sleep(0.1)
        row = self.count(but)
        self.promise(not row.lost and not row.held and row.letters == letters, str(row))
        self.promise(not any(effects.events(key) for key in but), f"{but} ran")
        return row

    def count(self, but: Collection[str] = ()) -> results.Row:
        """End the workers and the senders, and add what is found to the table."""
        deadline = time.monotonic() + 5
        while tasks_of(self.workers, self.broker.url) and time.monotonic() < deadline:
            time.sleep(0.1)  # until they have acknowledged: what is in the broker then will run again
        self.end()
        held, letters = self.broker.held(), effects.dead_letters()
        runs = effects.finished()
        missing = len({sent.key for sent in self.sent if not sent.error} - set(but) - runs.keys())
        row = results.Row(
            fault=self.fault,
            broker=self.broker.name,
            profile=self.profile,
            sent=len(self.sent),
            finished=len(runs),
            lost=max(0, missing - held - letters),
            held=held,
            letters=letters,
            twice=sum(times > 1 for times in runs.values()),
            seconds=None if missing or not self.moment else max(0.0, effects.last_finish() - self.moment),
            patience=self.patience,
            seen=self.seen,
        )
        self.rows.append(row)
        return row

    def end(self) -> None:
        """Kill what runs."""
        for worker in self.workers:
            worker.kill()
        for sender in self.senders:
            sender.kill()

    def _nothing_left(self) -> bool:
        """Return whether nothing waits in the broker, and nothing is with a worker."""
        return (
            not self.broker.held() and tasks_of(self.workers, self.broker.url) == 0 and not self.broker.held()
        )
