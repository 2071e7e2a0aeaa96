"""What healthy processes report to the status page."""

import json

from status import reporting
from status.reporting import Figures

HEALTHY: dict[str, Figures] = {
    "worker": {
        "celery_worker_live": [({}, 1)],
        "celery_worker_deaf": [({}, 0)],
        "celery_worker_consuming": [({"queue": "celery"}, 1), ({"queue": "long"}, 1)],
        "celery_tasks_finished_total": [({}, 1000)],
    },
    "exporter": {
        "celery_source_up": [({"source": "broker"}, 1), ({"source": "database"}, 1)],
        "celery_queue_messages": [({"queue": "celery"}, 3), ({"queue": "long"}, 0)],
        "celery_queue_oldest_message_age_seconds": [({"queue": "celery"}, 2), ({"queue": "long"}, 0)],
    },
    "beat": {
        "celery_beat_tick_age_seconds": [({}, 1)],
        "celery_beat_entry_late_seconds": [({"entry": "nightly"}, 0)],
    },
}


def put(role: str, number: int, samples: int) -> None:
    """Put a report of a healthy process, and samples of its past, where processes put them."""
    process, client = f"{role} host-{number}:1", reporting.connect_to_cache()
    now, figures = reporting.clock(client), HEALTHY[role]
    plotted = {name: figures[name] for name in reporting.PLOTTED if name in figures}
    client.set(reporting.now_key(process), json.dumps(figures))
    client.zadd(reporting.PROCESSES, {process: now})
    for sample in reversed(range(samples)):
        at = now - sample * reporting.SAMPLE_EVERY
        client.lpush(reporting.past_key(process), json.dumps({"at": at, "figures": plotted}))
