"""Settings, URLs and the Celery application."""

# Imported with Django, so that every @shared_task finds the application.
from config.celery import app as celery_app

__all__ = ["celery_app"]
