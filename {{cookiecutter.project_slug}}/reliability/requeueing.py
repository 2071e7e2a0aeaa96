"""Dead letters on their way back: the message as it was, straight into the queue that it came from."""

import base64
import json
import uuid
from typing import Any, NamedTuple

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from django.db import router, transaction
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError

from reliability.letters import clean
from reliability.messages import queue_of
from reliability.models import LONGEST_ERROR, LONGEST_NAME, DeadLetter, State
from reliability.redelivery import SINCE

logger = get_logger(__name__)
CHUNK = 100  # rows in one transaction: a process that dies in it has sent so many twice, at the most


class RequeueError(Exception):
    """This dead letter cannot be requeued, now or later; the text says why."""


class Requeued(NamedTuple):
    """What became of some dead letters."""

    last: int  # the key of the last row; 0 where there was none
    sent: int
    refused: int  # still dead, each with the reason in `requeue_error`


def requeue(letter: DeadLetter, app: Celery) -> None:
    """Publish the message again: same id, headers, body, priority and queue.

    What belongs to its first life is left out: `retries` start at 0, `eta` and `expires` are over.
    Raises kombu.exceptions.OperationalError when the broker is away, and RequeueError.
    """
    if not letter.complete:
        raise RequeueError("Its message was not kept whole.")
    if not letter.queue:
        raise RequeueError("Nobody knows its queue.")
    headers, body = _afresh(letter)
    try:
        queue = queue_of(app, letter.queue)
    except KeyError:
        raise RequeueError(f"task_queues has no queue {letter.queue!r}.") from None
    with app.producer_or_acquire() as producer:
        producer.publish(
            body,
            # Not by its exchange: that may lead to other queues too, whose copies did not fail.
            exchange="",
            routing_key=queue.name,
            declare=[queue],
            # A queue that somebody deleted meanwhile is an error, where the broker confirms.
            mandatory=bool(app.conf.broker_transport_options.get("confirm_publish")),
            headers=headers,
            # kombu's readings of a message that says nothing
            content_type=letter.content_type or "application/data",
            content_encoding=letter.content_encoding or "utf-8",
            priority=letter.priority or 0,
            correlation_id=letter.task_id,
            delivery_mode="persistent",
            retry=True,
            retry_policy=app.conf.task_publish_retry_policy,
        )


def _afresh(letter: DeadLetter) -> tuple[dict[str, Any], bytes]:
    """Return headers and body as if the message had not been delivered yet."""
    headers = json.loads(letter.headers)
    body = base64.b64decode(letter.body) if letter.body_encoding == "base64" else letter.body.encode()
    headers.pop(SINCE, None)  # it may be unknown for as long as a new one
    headers.pop("compression", None)  # the body is kept open
    again = {"retries": 0, "eta": None, "expires": None}
    if "task" in headers:
        headers |= again
    elif "task" in (fields := _fields(body)):  # Celery's first protocol, which other languages still speak
        body = json.dumps(fields | again).encode()
    return headers, body


def _fields(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def ask(rows: QuerySet[DeadLetter], by: str) -> uuid.UUID:
    """Mark these rows for the task `requeue_dead_letters` and return the name of their batch.

    Those that cannot be requeued join it, and stay dead. Rows that were requeued before are left alone.
    """
    batch = uuid.uuid4()
    with transaction.atomic(using=router.db_for_write(DeadLetter)):
        waiting = rows.exclude(state=State.REQUEUED)
        waiting.filter(complete=False).update(requeue_batch=batch)
        waiting.filter(complete=True).update(
            requeue_batch=batch,
            requeued_by=clean(by, LONGEST_NAME),
            requeued_at=timezone.now(),
            requeue_error="",
            state=State.REQUEUEING,
        )
    return batch


def stop(batch: uuid.UUID) -> int:
    """Leave dead what is still waiting in this batch, and return how many that are."""
    waiting = DeadLetter.objects.filter(requeue_batch=batch, state=State.REQUEUEING)
    return waiting.update(state=State.DEAD, requeue_batch=None, requeued_at=None, requeued_by="")


def progress_of(batch: uuid.UUID) -> dict[str, Any]:
    """Return the numbers of a batch: `done` of `total`, and what became of them; `last_sent` is a time."""
    dead = Q(state=State.DEAD)
    found = DeadLetter.objects.filter(requeue_batch=batch).aggregate(
        all=Count("pk"),
        waiting=Count("pk", filter=Q(state=State.REQUEUEING)),
        incomplete=Count("pk", filter=dead & Q(complete=False)),
        refused=Count("pk", filter=dead & Q(complete=True) & ~Q(requeue_error="")),
        failed_again=Count("pk", filter=dead & Q(complete=True, requeue_error="")),
        last_sent=Max("requeued_at"),
    )
    total = found["all"] - found["incomplete"]
    return {**found, "total": total, "done": total - found["waiting"]}


def requeue_next(rows: QuerySet[DeadLetter], app: Celery, by: str | None = None) -> Requeued:
    """Requeue the first CHUNK of `rows`, in the order of their keys, and mark them.

    Any number of processes may do so at once: a row that another works on is passed over.
    Raises kombu.exceptions.OperationalError when the broker is away, and SoftTimeLimitExceeded when a task's
    time is over; what was sent until then is marked.
    """
    database = router.db_for_write(DeadLetter)
    sent: list[int] = []
    last, refused = 0, 0
    problem: BaseException | None = None
    with transaction.atomic(using=database):
        chosen = rows.using(database).select_for_update(skip_locked=True).order_by("pk")[:CHUNK]
        try:
            for letter in chosen.iterator(chunk_size=10):  # a body may be large
                last = letter.pk
                try:
                    requeue(letter, app)
                    sent.append(letter.pk)
                except (OperationalError, SoftTimeLimitExceeded):  # not of this one, which waits for the next
                    raise
                except Exception as error:  # of this one; the others must not wait for it
                    refused += 1
                    _refuse(letter, error)
        except BaseException as error:  # also when the process is to end: these are sent
            problem = error
        who = {} if by is None else {"requeued_by": clean(by, LONGEST_NAME), "requeue_batch": None}
        DeadLetter.objects.using(database).filter(pk__in=sent).update(
            state=State.REQUEUED, requeued_at=timezone.now(), requeue_error="", **who
        )
    if problem:
        raise problem
    return Requeued(last, len(sent), refused)


def _refuse(letter: DeadLetter, error: Exception) -> None:
    text = str(error) if isinstance(error, RequeueError) else f"{type(error).__name__}: {error}"
    letter.state, letter.requeue_error = State.DEAD, clean(text, LONGEST_ERROR)
    letter.save(update_fields=["state", "requeue_error"])
    logger.error("Cannot requeue %s: %s", letter, text)
