"""The switches of this app: Django's setting `RELIABILITY`, a dictionary. What it leaves out is as below."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

SWITCHES = {
    "retries",  # task.py: transient errors are tried again
    "check_arguments",  # arguments.py: what JSON would change is refused
    "send_after_commit",  # sending.py: nothing is sent from a transaction that rolls back
    "publish_errors",  # publishing.py: errors say whether the task may have been sent
    "dead_letters",  # capture.py: what cannot run is kept
    "unknown_tasks",  # redelivery.py: what this version does not know waits for the one that does
    "reconnect",  # reconnecting.py: a restart of Redis interrupts nothing
    "drain",  # shutdown.py: SIGTERM finishes what can be finished
    "throughput",  # throughput.py: what the others cost in speed is won back
    "check_limits",  # limits.py: time limits fit the graces of the deployment
    "check_broker",  # broker.py: the broker keeps what it is given
    "refuse_embedded_beat",  # beat.py: one beat, in a process of its own
    "check_schedule",  # beat.py: what is sent by the schedule exists and expires
    "check_versions",  # versions.py: celery and kombu are those that were tested
}
VALUES: dict[str, Any] = {
    "unknown_task_patience": 900,  # seconds that an unknown task or signature waits for a newer worker
    "long_time_limit": None,  # seconds; the longest hard limit of the queue `long`, None without its workers
    "redact": [],  # names of tasks whose arguments show nowhere but in their message
}


def enabled(switch: str) -> bool:
    """Return whether this promise is on, as all are unless `RELIABILITY` says False."""
    if switch not in SWITCHES:
        raise LookupError(switch)
    return bool(_given().get(switch, True))


def value(name: str) -> Any:
    """Return the number or list of this name, from `RELIABILITY` or the default in VALUES."""
    return _given().get(name, VALUES[name])


def _given() -> dict[str, Any]:
    return getattr(settings, "RELIABILITY", {})


@register
def check_names(**_: Any) -> list[CheckMessage]:
    """Refuse a misspelled name: it would switch nothing, without a word."""
    return [
        Error(
            f"RELIABILITY has no {name!r}; it knows {', '.join(sorted(SWITCHES | VALUES.keys()))}.",
            id="reliability.E001",
        )
        for name in _given()
        if name not in SWITCHES and name not in VALUES
    ]
