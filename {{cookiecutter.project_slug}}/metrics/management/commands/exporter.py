"""`manage.py exporter`: tell Prometheus what broker and database know. Any number of copies may run."""

import signal
from typing import Any

from django.core.management.base import BaseCommand
from prometheus_client import REGISTRY

from health import systemd
from health.server import as_json, serve
from metrics.collectors import Exporter, all_sources
from status import reporting


class Command(BaseCommand):
    """Serves until SIGTERM."""

    help = "Serve /metrics about broker, queues, database and dead letters, on METRICS_HOST and METRICS_PORT."

    def handle(self, *_: Any, **__: Any) -> None:
        # Waited for, not handled: a signal must not interrupt the thread of a scrape. Threads inherit this.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        REGISTRY.register(Exporter(all_sources()))
        serve("exporter", {"/livez": lambda: as_json(True)}, required=True)
        reporting.begin("exporter")
        systemd.ready(lambda: True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
