"""`celery -A tests.app`: the application, with what tests/settings.py changes from the start.

A worker's command line reads some of Celery's settings before Django's are loaded.
"""

from config.celery import app
from tests import settings

__all__ = ["app", "settings"]
