"""Says when celery or kombu is another minor version than the one whose faults were tested."""

from importlib.metadata import version
from logging import getLogger
from typing import Any

from celery.signals import beat_init, celeryd_after_setup
from django.core.checks import CheckMessage, Warning, register

from reliability.conf import enabled

TESTED = {"celery": "5.7", "kombu": "5.7"}

logger = getLogger(__name__)


@register
def check_versions(**_: Any) -> list[CheckMessage]:
    """Warn about each package that is installed in a minor version that nobody tested."""
    if not enabled("check_versions"):
        return []
    return [
        Warning(
            f"{package} {version(package)} is installed, and `reliability` was tested with {minor}.",
            hint=f"Install {package}=={minor}.*, or run the tests of the faults with the new version "
            "and then change TESTED in reliability/versions.py.",
            id="reliability.W040",
        )
        for package, minor in TESTED.items()
        if version(package).split(".")[:2] != minor.split(".")
    ]


def log_versions(**_: Any) -> None:
    """Log the same warnings: workers and beat run the system checks, and drop what these say."""
    for message in check_versions():
        logger.warning("%s %s", message.msg, message.hint)


def connect() -> None:
    """Log when a worker or beat starts, once its logging is set up."""
    celeryd_after_setup.connect(log_versions)
    beat_init.connect(log_versions)
