"""A real memory limit of the kernel, for the OOM killer."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT = 700 * 2**20  # bytes; far above what a worker needs, far below what the task takes


@contextmanager
def limited_memory(*pids: int) -> Iterator[Callable[[], int]]:
    """Hold these processes to LIMIT; gives a function that says how many the kernel has killed for it.

    Skips the test, with the reason, where no cgroup can be made: that takes Linux and root.
    """
    modern = (V2 / "cgroup.controllers").exists()
    group = (V2 if modern else V1) / f"faults-{os.getpid()}"
    limit = group / ("memory.max" if modern else "memory.limit_in_bytes")
    counter = group / ("memory.events" if modern else "memory.oom_control")
    try:
        group.mkdir()
        limit.write_text(str(LIMIT))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    if not modern:  # without this a page that is about to be refused goes to swap
        (group / "memory.swappiness").write_text("0")
    elif (group / "memory.swap.max").exists():
        (group / "memory.swap.max").write_text("0")

    def killed() -> int:
        found = re.search(r"^oom_kill (\d+)", counter.read_text(), re.MULTILINE)
        assert found, f"{counter.name} does not count"
        return int(found[1])

    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield killed
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(left)
        group.rmdir()
