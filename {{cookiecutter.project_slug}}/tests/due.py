"""The project's application with a schedule that is due when beat starts: `celery -A tests.due beat`."""

from datetime import UTC, datetime
from typing import Any

from celery.schedules import crontab

from config.celery import app

__all__ = ["app"]


def entry(schedule: Any, how: str) -> dict[str, Any]:
    """Return an entry that misbehaves as asked, and was last sent long ago."""
    return {
        "task": "tests.tasks.misbehave",
        "args": [how],
        "schedule": schedule,
        "options": {"expires": 60},
        "last_run_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


app.conf.beat_schedule = {
    "hourly": entry(crontab(minute=17), "not at all"),
    "daily": entry(24 * 3600, "with an error"),
    "retried": entry(3600, "once"),
    "killed": entry(3600, "") | {"task": "tests.tasks.deadly_once", "args": []},
    "often": entry(5, "not at all"),
}
