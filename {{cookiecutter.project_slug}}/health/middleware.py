"""`/livez` and `/readyz`, answered before any other middleware.

A probe asks by address and over plain HTTP. Past this point ALLOWED_HOSTS would refuse it
and the redirect to HTTPS would send it away.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from health.probes import livez, readyz

PROBES = {"/livez": livez, "/readyz": readyz}


class HealthMiddleware:
    """Answer GET and HEAD of the two probes; hand on every other request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = PROBES.get(request.path)
        if probe and request.method in {"GET", "HEAD"}:
            response = probe()
            response["Cache-Control"] = "no-store"
            return response
        return self.get_response(request)
