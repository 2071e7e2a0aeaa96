"""Prometheus and Alertmanager beside the processes of a scenario, with the project's rules on a faster clock.

What is a minute in monitoring/ is a second here. Nothing else of the rules is changed.
"""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from django.core.cache import cache

from dev import BASE_DIR
from dev.processes import free_port
from faults.world import World
from tests.harness import Worker, eventually
from tests.web import Web

RULES = ("alerts.yaml", "alerts-redis.yaml", "alerts-rabbitmq.yaml")
MISSING = [program for program in ("prometheus", "prometheus-alertmanager") if not shutil.which(program)]
CONFIGURATION = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ['{folder}/rules/*.yaml']
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}
scrape_configs:
"""
JOB = """\
  - job_name: {job}
    file_sd_configs: [{{files: ['{folder}/{job}.json'], refresh_interval: 1s}}]
"""
QUEUES = """\
  - job_name: broker-queues
    metrics_path: /metrics/detailed
    params: {{family: [queue_coarse_metrics]}}
    file_sd_configs: [{{files: ['{folder}/broker.json'], refresh_interval: 1s}}]
"""


class Exporter(Worker):
    """The exporter, in a process of its own."""

    program = ("-m", "faults.exporter")


class Receiver(ThreadingHTTPServer):
    """What a team's pager would be: it keeps each alert's last status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status: dict[tuple[str, str], str] = {}  # by the alert's name and its labels
        self.names: set[str] = set()  # all that ever fired
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def is_firing(self, name: str) -> bool:
        """Return whether an alert of this name has fired and not been resolved."""
        found = {status for (alert, _), status in self.status.copy().items() if alert == name}
        return "firing" in found


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in told["alerts"]:
            name = alert["labels"]["alertname"]
            self.server.status[name, json.dumps(alert["labels"], sort_keys=True)] = alert["status"]
            if alert["status"] == "firing":
                self.server.names.add(name)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def faster(text: str) -> str:
    """Return rules whose minutes are seconds."""
    return re.sub(r"\* 60\b", "* 1", re.sub(r"\b(\d+)m\b", r"\1s", text))


class Monitoring:
    """What watches one scenario, and its exporter."""

    def __init__(self, world: World) -> None:
        """Start everything; targets come with `watch`."""
        self.world, self.folder = world, world.folder / "monitoring"
        (self.folder / "rules").mkdir(parents=True)
        for rules in RULES:
            if (BASE_DIR / "monitoring" / rules).exists():
                text = (BASE_DIR / "monitoring" / rules).read_text()
                (self.folder / "rules" / rules).write_text(faster(text))
        self.receiver = Receiver()
        self.port, alertmanager = free_port(), free_port()
        text = CONFIGURATION.format(folder=self.folder, alertmanager=alertmanager)
        for job in ("web", "worker", "beat", "exporter", "broker"):
            text += JOB.format(job=job, folder=self.folder)
            self.watch(job)
        text += QUEUES.format(folder=self.folder)
        self.watch_broker()
        cache.clear()  # of canaries that an earlier scenario has sent
        (self.folder / "prometheus.yaml").write_text(text)
        text = (BASE_DIR / "monitoring" / "alertmanager.yaml").read_text()
        text = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text)
        text = text.replace("http://127.0.0.1:9999", f"http://127.0.0.1:{self.receiver.server_port}")
        (self.folder / "alertmanager.yaml").write_text(text)
        self.others: list[Worker] = []  # what a scenario started besides
        self.processes = [
            self._start(
                "prometheus-alertmanager",
                f"--config.file={self.folder}/alertmanager.yaml",
                f"--storage.path={self.folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ),
            self._start(
                "prometheus",
                f"--config.file={self.folder}/prometheus.yaml",
                f"--storage.tsdb.path={self.folder}/prometheus",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--rules.alert.resend-delay=1s",
            ),
        ]
        self.start_exporter()

    def start_exporter(self, **environment: str) -> Worker:
        """Start the exporter and watch it."""
        # The broker's URL is among the variables, so it does not wait for a line of Celery's.
        self.exporter = Exporter(self.folder / "exporter.log", {**self.world.environment, **environment}, ())
        self.watch("exporter", self.exporter)
        return self.exporter

    def watch(self, job: str, *processes: Worker | Web) -> None:
        """Have Prometheus scrape these processes as this job, and no others."""
        self._targets(job, [process.port for process in processes])

    def watch_broker(self) -> None:
        """Have Prometheus scrape what the broker itself tells, where it does."""
        ports = [port] if (port := getattr(self.world.broker.server, "metrics_port", 0)) else []
        self._targets("broker", ports)

    def _targets(self, job: str, ports: list[int]) -> None:
        targets = [f"127.0.0.1:{port}" for port in ports]
        file = self.folder / f"{job}.json"
        file.with_suffix(".new").write_text(json.dumps([{"targets": targets}]))
        file.with_suffix(".new").replace(file)

    def fires(self, name: str, *, silently: tuple[str, ...] = ()) -> float:
        """Return how many seconds it took until the alert arrived. None of `silently` may have come."""
        begun = time.monotonic()
        eventually(lambda: self.receiver.is_firing(name), f"{name} to arrive")
        assert not self.receiver.names & set(silently), self.receiver.names
        return time.monotonic() - begun

    def resolves(self, name: str) -> None:
        """Return when the alert is over."""
        eventually(lambda: not self.receiver.is_firing(name), f"{name} to be resolved")

    def forget(self) -> None:
        """Once that is over, forget what fired while the stack started; most scenarios have no beat."""
        eventually(
            lambda: all(
                status == "resolved" or name in ("DeadMansSwitch", "BeatDown")
                for (name, _), status in self.receiver.status.copy().items()
            ),
            "a healthy stack",
        )
        self.receiver.names.clear()

    def value(self, query: str) -> list[Mapping[str, Any]]:
        """Return what a query finds now; nothing while Prometheus does not answer."""
        try:
            found: list[Mapping[str, Any]] = self.ask("query", query=query)["result"]
            return found
        except URLError:
            return []

    def ask(self, what: str, **parameters: object) -> Any:
        """Return what Prometheus answers; HTTPError, a URLError, when it refuses the question."""
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{what}?{urlencode(parameters)}") as answer:
            return json.load(answer)["data"]

    def end(self) -> None:
        """End all that was started."""
        for process in (self.exporter, *self.others):
            process.kill()
        for server in self.processes:
            server.kill()
            server.wait()
        self.receiver.shutdown()
        self.receiver.server_close()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
