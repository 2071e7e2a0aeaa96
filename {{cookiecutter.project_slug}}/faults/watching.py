"""What health/, metrics/ and status/ take of the CPU time of a worker's main process, which all tasks pass.

On a shared machine the speeds of two runs differ by more than what is looked for; CPU time that is counted
around the calls differs less: `python -m dev.throwaway python -m faults.watching`.
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

    spent, moments, pid = [0], [], os.getpid()

    def timed(send: Callable[..., Any]) -> Callable[..., Any]:
        def timed_send(*args: Any, **options: Any) -> Any:
            begun = time.thread_time_ns()
            try:
                return send(*args, **options)
            finally:
                ended = time.thread_time_ns()
                spent[0] += ended - begun
                moments.append((time.process_time_ns(), ended))

        return timed_send

    told: list[Any] = [task_received, signals.started, signals.finished]
    for signal in told:
        signal.send = timed(signal.send)

    def write() -> None:
        if os.getpid() == pid:
            whole, of_main = (last - first for first, last in zip(moments[0], moments[-1], strict=True))
            shares = {"receivers": spent[0], "threads": whole - of_main, "all": whole}
            tasks = len(moments) / 3
            note.write_text(json.dumps({name: share / tasks / 1000 for name, share in shares.items()}))

    atexit.register(write)


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
                note.unlink(missing_ok=True)
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
