"""The other end of faults/sender.py: orders to a process that sends tasks."""

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import BASE_DIR
from tests.harness import PATIENCE, database_url


@dataclass(frozen=True)
class Sent:
    """How an order ended."""

    key: str  # names the task in the table of effects
    id: str  # the task's id, empty when no answer and no error named one
    error: str  # the exception's class, empty when there was none, "hangs" when there was no answer
    text: str  # the exception's text
    seconds: float  # until the answer


class Sender:
    """A process that sends tasks with the settings of a profile."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        """Start it; it is ready when it answers the first order."""
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "faults.sender"],
                cwd=BASE_DIR,
                env={**os.environ, "DATABASE_URL": database_url(), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.log = log
        self.is_ready = False

    def order(
        self, key: str, task: str, way: str, options: dict[str, Any], patience: float, **kwargs: Any
    ) -> Sent:
        """Have a task sent. `way` names a function of sender.py; it "hangs" after `patience` seconds."""
        if not self.is_ready:
            ready = self._read(PATIENCE)
            assert ready, f"the sender did not start:\n{self.log.read_text()}"
            self.is_ready = True
        order = {
            "task": f"faults.tasks.{task}",
            "way": way,
            "kwargs": {"key": key, **kwargs},
            "options": options,
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        began = time.monotonic()
        self.process.stdin.flush()
        answer = self._read(patience)
        if answer is None:
            return Sent(key, "", "hangs", f"no answer within {patience} s", time.monotonic() - began)
        return Sent(key, **answer)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()

    def _read(self, patience: float) -> dict[str, Any] | None:
        """Return the next line, None when there is none within `patience` seconds."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            return None
        line = self.process.stdout.readline()
        assert line, f"the sender ended:\n{self.log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer
