"""What the system says about processes that are not our children."""

import subprocess
from typing import NamedTuple


class Process(NamedTuple):
    """One process; `state` is a letter of ps: T is stopped, Z has ended and waits for its parent."""

    pid: int
    parent: int
    group: int
    state: str


def processes() -> list[Process]:
    """Return all processes of this machine."""
    columns = ["-o", "pid=", "-o", "ppid=", "-o", "pgid=", "-o", "stat="]
    shown = subprocess.run(["ps", "-A", *columns], capture_output=True, text=True, check=True)
    lines = (line.split() for line in shown.stdout.splitlines())
    return [Process(int(pid), int(parent), int(group), state[0]) for pid, parent, group, state in lines]


def is_alive(pid: int) -> bool:
    """Return whether the process exists and has not ended."""
    return any(process.pid == pid and process.state != "Z" for process in processes())


def is_frozen(pid: int) -> bool:
    """Return whether the process is stopped by a signal."""
    return any(process.pid == pid and process.state == "T" for process in processes())
