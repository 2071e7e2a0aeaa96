"""Counts requests in each process of web. config/gunicorn.py adds the processes up, and shows the sums.

Probes are answered before this middleware, and not counted. Labels are names of views, not paths: no visitor
can add one.
"""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Gauge, Histogram

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # the bounds of the histogram

REQUESTS = Counter("web_requests_total", "Requests that were answered.", ["view", "method", "status"])
DURATION = Histogram("web_request_seconds", "How long that took.", ["view", "method"], buckets=SECONDS)
RUNNING = Gauge("web_requests_running", "Requests that are being answered.", multiprocess_mode="livesum")


class MetricsMiddleware:
    """Count each request that comes past the probes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        begun = time.perf_counter()
        with RUNNING.track_inprogress():
            response = self.get_response(request)
        match = request.resolver_match
        view = (match.view_name if match else "") or "(none)"
        method = request.method if request.method in METHODS else "(other)"
        REQUESTS.labels(view, method, response.status_code).inc()
        DURATION.labels(view, method).observe(time.perf_counter() - begun)
        return response
