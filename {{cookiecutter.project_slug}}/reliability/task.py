"""The base of every task: transient errors are tried again, a limited number of times, ever further apart."""

from typing import Any

from celery import Celery
from celery.canvas import Signature
from celery.contrib.django.task import DjangoTask
from celery.exceptions import Reject, Retry
from django.db import InterfaceError, OperationalError

from reliability import limits, sending
from reliability.conf import enabled

# What may pass by itself: a server that restarts, a network that breaks off, a lost deadlock. Timeouts of
# sockets are OSErrors of their own, so TimeoutError is among them; a task adds those of its libraries.
TRANSIENT = (OperationalError, InterfaceError, ConnectionError, TimeoutError)


class Task(DjangoTask):
    """What `@shared_task` makes. Each attribute can be set again in the decorator.

    Eight retries with full jitter take a minute and a half on average and three minutes at the most: longer
    than a restart of the database. Then the task fails, and becomes a dead letter.
    """

    Request = "reliability.request:Request"
    autoretry_for: tuple[type[Exception], ...] = TRANSIENT
    max_retries = 8
    retry_backoff = 1  # seconds: up to 1, 2, 4, ... drawn at random (retry_jitter)
    retry_backoff_max = 60  # seconds
    retry_jitter = True
    default_retry_delay = 1  # seconds, before the run after a lost process; Celery's default is three minutes

    @classmethod
    def bind(cls, app: Celery) -> Celery:
        """Add the soft limit that belongs to a hard one, before the settings fill what is left open."""
        limits.complete(cls)
        return super().bind(app)

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Take the retries away when they are switched off."""
        if not enabled("retries") and cls.autoretry_for is TRANSIENT:
            cls.autoretry_for = ()

    def retry(self, *args: Any, **kwargs: Any) -> Retry:
        """Send this task again: at once, even inside a transaction, because its failure rolls that back.

        When the broker cannot take it the message goes back to the queue. Celery would drop it.
        """
        try:
            with sending.at_once():
                return super().retry(*args, **kwargs)
        except Reject as refused:
            raise Reject(refused.args[0], requeue=True) from refused

    def replace(self, sig: Signature) -> Any:
        """Send another task in place of this one, at once: this one ends here, as after a retry."""
        with sending.at_once():
            return super().replace(sig)
