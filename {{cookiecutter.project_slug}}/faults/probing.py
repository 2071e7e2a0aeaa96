"""What one liveness probe of a worker costs, beside `celery inspect ping`, which is what many use.

`python -m dev.throwaway python -m faults.probing` prints medians as JSON: seconds, and seconds of CPU time.
"""

import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dev import BASE_DIR
from tests.harness import eventually

ROUNDS = 15
NODE = "probed@here"


def cost(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return how many seconds a command took, and of CPU time; SystemExit when the probe fails."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=BASE_DIR, env=environment, capture_output=True, text=True)
    elapsed, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command} failed: {done.stdout}{done.stderr}")
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Start a worker, ask it in both ways by turns, and print what that cost."""
    port = int(os.environ.get("METRICS_PORT") or 9812)
    environment = {**os.environ, "METRICS_PORT": str(port), "SECRET_KEY": secrets.token_hex(32)}
    ask = [sys.executable, "-S", "-E", "health/ask.py", "livez", str(port)]
    ping = [sys.executable, "-m", "celery", "-A", "config", "inspect", "ping", "-d", NODE]
    with tempfile.TemporaryDirectory() as name, (Path(name) / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "celery", "-A", "config", "worker", "-n", NODE, "-c", "2"]
        worker = subprocess.Popen(command, cwd=BASE_DIR, env=environment, stdout=log, stderr=log)
        try:
            eventually(
                lambda: not subprocess.run(ping, env=environment, capture_output=True).returncode, "it"
            )
            rounds = [(cost(ask, environment), cost(ping, environment)) for _ in range(ROUNDS)]
        finally:
            worker.terminate()
            worker.wait(60)
    figures = {
        "probe": statistics.median(probe[0] for probe, _ in rounds),
        "probe_cpu": statistics.median(probe[1] for probe, _ in rounds),
        "ping": statistics.median(ping[0] for _, ping in rounds),
        "ping_cpu": statistics.median(ping[1] for _, ping in rounds),
        "ratio": statistics.median(ping[1] / probe[1] for probe, ping in rounds),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
