"""What health/, metrics/ and status/ take of the CPU time of a worker's main process, which all tasks pass.

On a shared machine the speeds of two runs differ by more than what is looked for; CPU time that is counted
around the calls differs less: `python -m dev.throwaway python -m faults.watching`. Needs Linux.
"""

import atexit
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 3
NOTE = "FAULTS_CPU_NOTE"  # the variable that tells a worker where to write its figures


def count(note: Path) -> None:
    """Count in this worker, and write microseconds a task when it ends: of receivers, threads, and all."""
    from celery.signals import task_received

    from reliability import signals

    spent, moments, pid = [0], [0], os.getpid()

    def timed(send: Callable[..., Any]) -> Callable[..., Any]:
        def timed_send(*args: Any, **options: Any) -> Any:
            begun = time.thread_time_ns()
            try:
                return send(*args, **options)
            finally:
                spent[0] += time.thread_time_ns() - begun
                moments.append(time.process_time_ns())

        return timed_send

    for signal in (task_received, signals.started, signals.finished):
        setattr(signal, "send", timed(signal.send))  # noqa: B010  # as a type checker would not have it

    def write() -> None:
        if os.getpid() == pid:
            tasks = len(moments) // 3
            figures = {
                "receivers": spent[0] / tasks / 1000,
                "threads": _of_threads() / tasks * 1e6,
                "all": (moments[-1] - moments[1]) / tasks / 1000,
            }
            note.write_text(json.dumps(figures))

    atexit.register(write)


def _of_threads() -> float:
    """Return the CPU seconds of all threads of this process but the first."""
    ticks = 0
    for thread in Path("/proc/self/task").iterdir():
        if thread.name != str(os.getpid()):
            fields = (thread / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a line for each round, then as JSON what is added, all of it, and what that leaves."""
    from faults.throughput import measure

    rounds = []
    with tempfile.TemporaryDirectory() as name:
        note = Path(name, "cpu.json")
        os.environ[NOTE] = str(note)
        for number in range(ROUNDS):
            figures = {}
            for profile in ("unwatched", "ours"):
                measure(profile, "WARNING", Path(name), "", "faults.tasks,faults.watching")
                figures[profile] = json.loads(note.read_text())
            rounds.append(figures)
            print(f"{number}: {figures}", file=sys.stderr, flush=True)
    added = statistics.median(
        sum(figures["ours"][of] - figures["unwatched"][of] for of in ("receivers", "threads"))
        for figures in rounds
    )
    whole = statistics.median(figures["ours"]["all"] for figures in rounds)
    print(json.dumps({"added": added, "all": whole, "ratio": 1 - added / whole}))


if path := os.environ.get(NOTE):
    count(Path(path))
elif __name__ == "__main__":
    main()
