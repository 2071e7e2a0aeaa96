"""The project's application with a schedule of a few seconds: `celery -A tests.ticking beat`."""

from config.celery import app
from tests import wedge

__all__ = ["app", "wedge"]

app.conf.beat_schedule = {
    "tick": {"task": "jobs.tasks.delete_old_reports", "schedule": 5.0, "options": {"expires": 60}},
}
