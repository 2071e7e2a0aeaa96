"""One function per question. Neither asks workers or the broker: web serves without them."""

import structlog
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import JsonResponse

logger = structlog.get_logger(__name__)
_complete: list[bool] = []  # holds something once the database has had every migration


def livez() -> JsonResponse:
    """Does this process answer at all? No I/O: a restart mends no other server's outage."""
    return JsonResponse({"status": "ok"})


def readyz() -> JsonResponse:
    """Can this process serve requests? 200 when the database answers and has every migration, else 503.

    Without a database it takes the pool's timeout in config/settings.py, 5 s. A database that
    accepts and never answers leaves the question open: give the probe a timeout of its own.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        missing = missing_migrations()
    except DatabaseError as error:
        logger.warning("not_ready", database=str(error))
        return JsonResponse({"status": "unavailable", "database": "unreachable"}, status=503)
    if missing:
        logger.warning("not_ready", missing_migrations=missing)
        return JsonResponse({"status": "unavailable", "missing_migrations": missing}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


def missing_migrations() -> list[str]:
    """Return the migrations that the database lacks. Once it has all, this process asks no more."""
    if not _complete:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            return [str(migration) for migration, _ in plan]
        _complete.append(True)
    return []
