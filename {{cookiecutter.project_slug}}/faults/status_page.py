"""What the server takes for the status page: `python -m dev.throwaway python -m faults.status_page 50`.

So many workers have reported, with an hour of samples each, and one exporter and beat. Prints JSON: the
median of the milliseconds that a request took from its arrival to the whole answer, and its queries.
"""

import json
import os
import secrets
import statistics
import sys
import tempfile
import time

REQUESTS = 50


def main() -> None:
    """Put the reports where processes put them, ask for the page, and print what that took."""
    workers = int(sys.argv[1])
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": secrets.token_hex(32),
        "DEBUG": "false",
        "LOG_LEVEL": "WARNING",
        "ALLOWED_HOSTS": "testserver",
    }
    import django

    django.setup()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"workers": workers, **measure(workers, folder)}))


def measure(workers: int, folder: str) -> dict[str, float]:
    """Return the median and the number of queries; `folder` is for static files."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from tests.reports import put

    settings.STATIC_ROOT = folder
    call_command("collectstatic", interactive=False, verbosity=0)
    call_command("migrate", verbosity=0)
    browser = Client()
    browser.force_login(get_user_model()._default_manager.create_superuser("alice"))
    for role, number in [*(("worker", number) for number in range(workers)), ("exporter", 0), ("beat", 0)]:
        put(role, number, samples=60)
    with CaptureQueriesContext(connection) as queries:
        assert f"host-{workers - 1}" in browser.get("/admin/status/", secure=True).text
        count = len(queries)
    milliseconds = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        browser.get("/admin/status/", secure=True)
        milliseconds.append((time.perf_counter() - begun) * 1000)
    return {"milliseconds": statistics.median(milliseconds), "queries": count}


if __name__ == "__main__":
    main()
