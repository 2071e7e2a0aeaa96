"""What the workers do for dead letters: store them, and send them again."""

import time
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import DataError, Error, IntegrityError
from kombu.exceptions import OperationalError

from reliability import letters, requeueing
from reliability.models import DeadLetter, State


def pause(task: Any) -> float:
    """Return the seconds until the next attempt: more each time, but less than Redis lets a message wait."""
    timeout = task.app.conf.broker_transport_options.get("visibility_timeout", 3600)
    return float(min(60, timeout / 4, 2 ** min(task.request.retries, 6)))


@shared_task(bind=True, max_retries=None, autoretry_for=(), ignore_result=True)
def store_dead_letter(self: Any, letter: letters.Letter) -> None:
    """Write the row of a dead letter. It is never given up: it waits until the database is back."""
    try:
        try:
            letters.store(letter)
        except SoftTimeLimitExceeded:
            raise
        except (DataError, IntegrityError) as refused:
            letters.store_least(letter, refused)
        except Error:
            raise
        except Exception as unreadable:
            letters.store_least(letter, unreadable)
    except (Error, SoftTimeLimitExceeded) as error:
        raise self.retry(exc=error, countdown=pause(self)) from error


@shared_task(bind=True, max_retries=None, autoretry_for=(), ignore_result=True)
def requeue_dead_letters(self: Any) -> None:
    """Send again what is marked for it. Ends before its soft time limit, and sends itself for the rest."""
    limit = (self.request.timelimit or (None, None))[1] or self.app.conf.task_soft_time_limit or 60
    end = time.monotonic() + limit / 2
    marked = DeadLetter.objects.filter(state=State.REQUEUEING)
    try:
        while requeueing.requeue_next(marked, self.app).last:
            if time.monotonic() > end:
                self.delay()
                return
    except (Error, OperationalError, SoftTimeLimitExceeded) as error:
        raise self.retry(exc=error, countdown=pause(self)) from error
