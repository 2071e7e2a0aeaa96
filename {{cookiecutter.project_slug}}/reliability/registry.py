"""The Celery application with every task imported: what system checks and `taskcontracts` look at."""

import os

from celery import Celery
from celery.app import app_or_default


def loaded_app() -> Celery:
    """Return the project's application once it knows all its tasks, as a worker does. Asks no server.

    Before it imports tasks, Celery runs Django's system checks. Here it must not: some ask servers,
    and some are the callers of this function.
    """
    app = app_or_default()
    before = os.environ.get("CELERY_SKIP_CHECKS")
    os.environ["CELERY_SKIP_CHECKS"] = "true"  # what `celery --skip-checks` sets
    try:
        app.loader.import_default_modules()
    finally:
        if before is None:
            del os.environ["CELERY_SKIP_CHECKS"]
        else:
            os.environ["CELERY_SKIP_CHECKS"] = before
    return app
