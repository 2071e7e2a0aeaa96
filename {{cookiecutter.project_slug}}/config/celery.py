"""The Celery application: `celery -A config worker`. Its settings are in config/celeryconfig.py."""

import os
from logging.config import dictConfig
from typing import Any

from celery.signals import setup_logging, worker_init
from django.conf import settings
from django_structlog.celery.steps import DjangoStructLogInitStep

from config import env, tasklog
from reliability.application import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("config")
app.config_from_object("config.celeryconfig")
app.autodiscover_tasks()
app.steps["worker"].add(DjangoStructLogInitStep)
tasklog.connect()
if env.OTEL_EXPORTER_OTLP_ENDPOINT:
    from config import tracing

    tracing.connect(app)


@setup_logging.connect
def log_as_django_does(**_: Any) -> None:
    """Use Django's logging in workers and beat; a connected receiver keeps Celery from its own."""
    dictConfig(settings.LOGGING)


@worker_init.connect
def connect_without_pool(**_: Any) -> None:
    """Give workers plain connections: Celery closes a pool after each task, and a new one costs more."""
    settings.DATABASES["default"]["OPTIONS"].pop("pool", None)
