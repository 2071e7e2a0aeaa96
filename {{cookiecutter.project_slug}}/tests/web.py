"""A real gunicorn, to be asked and killed."""

import os
import subprocess
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from dev import BASE_DIR
from dev.processes import free_port


def status(url: str) -> int | None:
    """Return the status of a page, None while nobody listens."""
    try:
        with urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return None


class Web:
    """A real gunicorn on ports of its own."""

    def __init__(self, **environment: str) -> None:
        port, self.port = free_port(), free_port()  # the second one is that of its figures
        self.url, self.figures = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{self.port}/metrics"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi"],
            cwd=BASE_DIR,
            env={**os.environ, "PORT": str(port), "METRICS_PORT": str(self.port), **environment},
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status and text of a page."""
        try:
            with urlopen(Request(self.url + path, headers={"Host": "testserver", **headers})) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def counted(self) -> float:
        """Return how many requests for the front page all processes together have answered."""
        with urlopen(self.figures) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        return sum(
            sample.value
            for sample in samples
            if sample.name == "web_requests_total" and sample.labels["view"] == "home"
        )

    def pids(self) -> list[int]:
        """Return the pids of the processes that answer."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    def has_replaced(self, pid: int) -> bool:
        """Return whether there are two processes again, after this one was killed."""
        pids = self.pids()
        return len(pids) == 2 and pid not in pids
