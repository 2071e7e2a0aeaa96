"""`/healthz`: every server that this project needs, how long it takes to answer, or how it fails.

For people and dashboards, never for a probe: an outage of the broker is no reason to take web out of service.
"""

import hmac
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from celery.app import app_or_default
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import Http404, HttpRequest, JsonResponse

TIMEOUT = 5  # seconds for all of them together


def database() -> None:
    """Ask PostgreSQL for a row."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()  # it belongs to this thread, which ends


def caches() -> None:
    """Ask the cache for a key that is not there."""
    cache.get("healthz")


def broker() -> None:
    """Open a connection to the broker."""
    with app_or_default().connection_for_write() as opened:
        opened.connect()


CHECKS: dict[str, Callable[[], None]] = {"database": database, "cache": caches, "broker": broker}


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 when all of CHECKS succeed, else 503, within TIMEOUT; 404 to whom it does not concern."""
    if not _may_ask(request):
        raise Http404
    pool = ThreadPoolExecutor(len(CHECKS))
    asked = {name: pool.submit(_timed, check) for name, check in CHECKS.items()}
    wait(asked.values(), TIMEOUT)
    pool.shutdown(wait=False, cancel_futures=True)  # one that is not answered yet ends by its own timeouts
    found = {name: _told(answer) for name, answer in asked.items()}
    healthy = all("error" not in one for one in found.values())
    response = JsonResponse(
        {"status": "ok" if healthy else "unavailable", **found}, status=200 if healthy else 503
    )
    response["Cache-Control"] = "no-store"
    return response


def _may_ask(request: HttpRequest) -> bool:
    """Return whether the request has the token HEALTH_TOKEN, or comes from a member of the staff."""
    given, wanted = request.headers.get("Authorization", ""), f"Bearer {settings.HEALTH_TOKEN}"
    if settings.HEALTH_TOKEN and hmac.compare_digest(given.encode(), wanted.encode()):
        return True
    return bool(request.user.is_active and getattr(request.user, "is_staff", False))


def _timed(check: Callable[[], None]) -> float:
    begun = time.perf_counter()
    check()
    return (time.perf_counter() - begun) * 1000


def _told(answer: "Future[float]") -> dict[str, float | str]:
    """Return the milliseconds, or the kind of the error: its text may hold a password."""
    if not answer.done():
        return {"error": f"no answer within {TIMEOUT} s"}
    error = answer.exception()
    return {"error": type(error).__name__} if error else {"milliseconds": round(answer.result(), 1)}
