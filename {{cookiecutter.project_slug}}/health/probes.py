"""One function per question. Neither asks workers or the broker: web serves without them."""

import threading
from concurrent.futures import Future
from contextlib import closing

import structlog
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import JsonResponse

logger = structlog.get_logger(__name__)
TIMEOUT = 5  # seconds that the database has for its answer
_complete: list[bool] = []  # holds something once the database has had every migration


def livez() -> JsonResponse:
    """Does this process answer at all? No I/O: a restart mends no other server's outage."""
    return JsonResponse({"status": "ok"})


def readyz() -> JsonResponse:
    """Can this process serve requests? 200 when the database answers and has every migration, else 503.

    Within TIMEOUT also when the database accepts and never answers. The thread that asks is then left to wait
    for it, so that probes take none from requests and from `/livez`; the pool bounds how many wait.
    """
    answer: Future[list[str]] = Future()
    threading.Thread(target=_ask, args=(answer,), name="readyz", daemon=True).start()
    try:
        missing = answer.result(TIMEOUT)
    except (DatabaseError, TimeoutError) as error:
        logger.warning("not_ready", database=str(error) or f"no answer within {TIMEOUT} s")
        return JsonResponse({"status": "unavailable", "database": "unreachable"}, status=503)
    if missing:
        logger.warning("not_ready", missing_migrations=missing)
        return JsonResponse({"status": "unavailable", "missing_migrations": missing}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


def _ask(answer: "Future[list[str]]") -> None:
    """Answer with the migrations that are missing, or with the error."""
    try:
        with closing(connection):  # it belongs to this thread, which ends
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            missing = missing_migrations()
        answer.set_result(missing)
    except Exception as error:
        answer.set_exception(error)


def missing_migrations() -> list[str]:
    """Return the migrations that the database lacks. Once it has all, this process asks no more."""
    if not _complete:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            return [str(migration) for migration, _ in plan]
        _complete.append(True)
    return []
