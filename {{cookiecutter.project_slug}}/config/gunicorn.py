"""Gunicorn's settings: `gunicorn --config python:config.gunicorn config.wsgi`."""

from typing import Any

from config import env

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


def worker_exit(_server: Any, _process: Any) -> None:
    """Close the connection pool: left to the garbage collector, its threads hold up the exit."""
    from django.db import connection

    connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL has it
