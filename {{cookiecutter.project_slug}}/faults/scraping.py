"""What the exporter costs while a queue is long: `python -m dev.throwaway python -m faults.scraping 1000000`.

Prints JSON: the messages that waited, and the median seconds that asking the broker and one scrape took.
"""

import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import time
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from kombu import Connection

from dev import BASE_DIR
from dev.processes import free_port
from tests.harness import eventually

SCRAPES = 30
SEND = "from faults.app import app; from faults import tasks; tasks.do_nothing.delay()"


def fill(messages: int, environment: dict[str, str]) -> None:
    """Send a task, and put its message into the queue again until there are so many."""
    subprocess.run([sys.executable, "-c", SEND], cwd=BASE_DIR, env=environment, check=True)
    with Connection(os.environ["BROKER_URL"]) as connection:
        channel: Any = connection.default_channel
        if os.environ["BROKER_URL"].startswith("redis"):
            text = channel.client.lindex("celery", 0)
            for _ in range(messages // 1000):
                channel.client.lpush("celery", *[text] * 1000)
            return
        found = channel.basic_get("celery")
        for _ in range(messages):
            channel.basic_publish(found, exchange="", routing_key="celery")


def measure(messages: int, port: int) -> dict[str, float]:
    """Return the medians, once the exporter on this port shows that so many wait."""

    def scrape() -> str:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                return str(page.read().decode())
        except URLError:
            return ""

    def figure(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", scrape(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    eventually(lambda: figure('celery_queue_messages{queue="celery"}') >= messages, "all of them")
    scraping, asking = [], []
    for _ in range(SCRAPES):
        begun = time.monotonic()
        scrape()
        scraping.append(time.monotonic() - begun)
        asking.append(figure('celery_source_seconds{source="broker"}'))
        time.sleep(1)  # the exporter asks each second
    return {"scrape": statistics.median(scraping), "asking": statistics.median(asking)}


def main() -> None:
    """Fill the queue, start the exporter, and print what it costs."""
    messages, port = int(sys.argv[1]), free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "FAULTS_PROFILE": "ours",
        "METRICS_PORT": str(port),
        "SECRET_KEY": secrets.token_hex(32),
    }
    fill(messages, environment)
    exporter = subprocess.Popen(
        [sys.executable, "-m", "faults.exporter"], cwd=BASE_DIR, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        print(json.dumps({"messages": messages, **measure(messages, port)}))
    finally:
        exporter.terminate()
        exporter.wait(60)


if __name__ == "__main__":
    main()
