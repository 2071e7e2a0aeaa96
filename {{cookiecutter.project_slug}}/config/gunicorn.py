"""Gunicorn's settings: `gunicorn --config python:config.gunicorn config.wsgi`."""

import os
import shutil
import tempfile
from typing import Any

from config import env

# The figures of all processes are files in this folder, which each server has for itself. prometheus_client
# reads the variable when it is imported, so that comes later, in the functions below.
_FIGURES = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="web-figures-")

bind = f"0.0.0.0:{env.PORT}"
workers = env.WEB_CONCURRENCY  # processes
threads = env.WEB_THREADS  # per process
timeout = 30  # seconds without a sign of life before a process is replaced
graceful_timeout = 20  # seconds that running requests get after SIGTERM
# Recycle processes now and then, not all at once: a slow leak never becomes an outage.
max_requests = 10_000
max_requests_jitter = 1_000
control_socket_disable = True  # nothing here uses it, and it needs a writable folder
# Requests are logged by django-structlog, with their id.
accesslog = None


def when_ready(server: Any) -> None:
    """Show the figures on a port of their own, from the process that outlives the others."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    from health.server import PORTS, Answer, listen

    registry = CollectorRegistry()
    MultiProcessCollector(registry)

    def figures() -> Answer:
        return Answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))

    try:
        listen(env.METRICS_HOST, env.METRICS_PORT or PORTS["web"], {"/metrics": figures})
    except OSError as error:
        server.log.error("Nobody can ask for the figures of web: %s", error)


def pre_fork(server: Any, process: Any) -> None:
    """Give the process the lowest free number: with that it goes on with the files of one that is gone."""
    taken = {other.figures for other in server.WORKERS.values()}
    process.figures = next(number for number in range(len(taken) + 1) if number not in taken)


def post_fork(_server: Any, process: Any) -> None:
    """Name the files after that number, not after the process: so they are as many as there are processes."""
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: process.figures)


def child_exit(_server: Any, process: Any) -> None:
    """Forget what the process was doing; what it has done stays counted."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process.figures)


def on_exit(_server: Any) -> None:
    """Leave nothing behind."""
    shutil.rmtree(_FIGURES, ignore_errors=True)


def worker_exit(_server: Any, _process: Any) -> None:
    """Close the connection pool: left to the garbage collector, its threads hold up the exit."""
    from django.db import connection

    connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL has it
