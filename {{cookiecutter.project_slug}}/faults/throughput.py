"""How many tasks a worker runs in a second, with two profiles of faults/profiles.py, round by round.

A round fills the queue, then starts a worker with two processes, and takes the time from the first task to
the last. Each round has both profiles, so a busy machine hurts both, each of them first in every other round:
`python -m dev.throwaway python -m faults.throughput WARNING defaults ours`.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kombu import Connection

from dev import BASE_DIR
from faults.profiles import environment
from tests.receivers import Receiver

TASKS = 6_000  # so many that what a worker does once, when it starts, does not count
ROUNDS = 7
PATIENCE = 300  # seconds
QUEUES = ("celery", "long", "rejected")
FILL = """
import django, os, sys; django.setup()
from faults.app import app
from faults import tasks
first, last = sys.argv[1:]
with app.producer_or_acquire() as producer:
    tasks.note_the_time.apply_async((first,), producer=producer)
    for _ in range({tasks}):
        tasks.do_nothing.apply_async(producer=producer)
    tasks.note_the_time.apply_async((last,), producer=producer)
"""


def empty() -> None:
    """Drop the queues and their exchange: the profiles declare them differently."""
    with Connection(os.environ["BROKER_URL"]) as connection:
        channel: Any = connection.default_channel
        if os.environ["BROKER_URL"].startswith("redis"):
            channel.client.flushdb()
            return
        for queue in QUEUES:
            channel.queue_delete(queue)
        channel.exchange_delete("celery")


def measure(profile: str, level: str, folder: Path, collector: str, include: str = "faults.tasks") -> float:
    """Return how many tasks a worker runs in a second. It imports the modules of `include`."""
    empty()
    variables = {
        **os.environ,
        **environment(profile),
        "SECRET_KEY": secrets.token_hex(32),
        "DEBUG": "false",
        "LOG_LEVEL": level,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector if profile == "traced" else "",
    }
    first, last = folder / "first", folder / "last"
    for path in (first, last):
        path.unlink(missing_ok=True)
    fill = [sys.executable, "-c", FILL.format(tasks=TASKS), str(first), str(last)]
    with (folder / "sender.log").open("wb") as log:
        subprocess.run(fill, cwd=BASE_DIR, env=variables, check=True, stdout=log, stderr=log)
    command = ["-A", "faults.app", "worker", "--queues", "celery", "-n", "bench", "-c", "2", "-l", level]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", *command, "--include", include],
            cwd=BASE_DIR,
            env=variables,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (last.exists() and last.read_text()):
            if worker.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"The worker did not finish:\n{(folder / 'worker.log').read_text()[-3000:]}")
            time.sleep(0.05)
        return TASKS / (float(last.read_text()) - float(first.read_text()))
    finally:
        worker.terminate()
        worker.wait(60)


def main() -> None:
    """Print a line for each round, then the medians as JSON, and the ratio of the second to the first."""
    level, *profiles = sys.argv[1:]
    rounds = []
    with tempfile.TemporaryDirectory() as name, Receiver() as receiver:
        folder, collector = Path(name), f"http://{receiver.host}"
        for number in range(ROUNDS + 1):
            order = profiles if number % 2 else profiles[::-1]
            figures = {profile: measure(profile, level, folder, collector) for profile in order}
            if number:  # the first one warms the disk cache
                rounds.append(figures)
            shown = ", ".join(f"{profile} {run:.0f}/s" for profile, run in figures.items())
            print(f"{number}: {shown}", file=sys.stderr, flush=True)
    result = {profile: statistics.median(figures[profile] for figures in rounds) for profile in rounds[0]}
    first, second = profiles
    result["ratio"] = statistics.median(figures[second] / figures[first] for figures in rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
