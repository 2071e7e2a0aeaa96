"""With which settings a scenario runs: ours, two others to compare with, and ours with one thing taken away.

A profile is a name, so that it can be given to another process:

`ours`                  the project as it is
`defaults`              Celery's own settings, and the broker's address
`vinta`                 the settings of vintasoftware/django-react-boilerplate
`reset:<setting>`       ours, with this setting as Celery has it by default; `reset:<setting>.<key>`
                        removes one key of a setting that is a dictionary
`set:<setting>=<JSON>`  ours, with another value
`off:<switch>`          ours, with this switch of RELIABILITY off
`unwatched`             ours, without the apps health, metrics and status
`traced`                ours, with OpenTelemetry; only throughput.py has a collector for it
`events`                `unwatched`, with the events that Flower and celery-exporter live from
"""

import json
import os

from celery import Celery
from celery.app.defaults import NAMESPACES, flatten

COMPARED = ("defaults", "vinta")

# backend/project_name/settings/base.py and production.py of that repository, 26ae88fc50c4 (January 2026),
# with its defaults for the environment. What only names Celery's own default is left out.
VINTA = {
    "accept_content": ["json"],
    "task_acks_late": True,
    "timezone": "UTC",
    "broker_transport_options": {"confirm_publish": True, "confirm_timeout": 5.0},
    "broker_pool_limit": 1,
    "broker_connection_timeout": 30.0,
    "task_reject_on_worker_lost": False,
    "worker_prefetch_multiplier": 1,
    "worker_max_tasks_per_child": 1000,
    "worker_send_task_events": True,
    "event_queue_expires": 60.0,
    "event_queue_ttl": 5.0,
}


def environment(profile: str) -> dict[str, str]:
    """Return what a process needs in its environment to run with this profile."""
    kind, _, name = profile.partition(":")
    without = name if kind == "off" else ""
    if kind in ("reset", "set"):  # the checks at the start would refuse most of these
        without = "check_limits check_broker"
    return {
        "FAULTS_PROFILE": profile,
        "DJANGO_SETTINGS_MODULE": "faults.bare" if profile in COMPARED else "tests.settings",
        "WITHOUT": without,
        "WITHOUT_APPS": "health metrics status" if profile in ("unwatched", "events") else "",
    }


def build(profile: str) -> Celery:
    """Return the application of this profile, with the scenario's settings in FAULTS_SETTINGS, as JSON."""
    app = _compared(profile) if profile in COMPARED else _ours(profile)
    app.conf.update(json.loads(os.environ.get("FAULTS_SETTINGS", "{}")))
    return app


def _compared(profile: str) -> Celery:
    app = Celery("compared", broker=os.environ["BROKER_URL"])
    if profile == "vinta":
        app.conf.update(VINTA, result_backend=os.environ["CACHE_URL"])
    return app


def _ours(profile: str) -> Celery:
    """Return the project's own application, which is changed for a mutation: so call it once in a process."""
    from config.celery import app  # not above: the compared ones must not load it

    kind, _, name = profile.partition(":")
    if kind == "reset":
        setting, _, key = name.partition(".")
        if key:
            app.conf[setting] = {other: value for other, value in app.conf[setting].items() if other != key}
        else:
            app.conf[setting] = dict(flatten(NAMESPACES))[setting].default
    if kind == "set":
        setting, _, value = name.partition("=")
        app.conf[setting] = json.loads(value)
    if profile == "events":
        app.conf.update(worker_send_task_events=True, task_send_sent_event=True)
    return app
