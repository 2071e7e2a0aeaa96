"""What a dead letter holds, and how it becomes a row.

A letter carries what others sent, so nothing in it may stop it from being stored: PostgreSQL refuses NUL,
half a surrogate pair and text that is too long. All of that is dealt with here.
"""

import base64
import hashlib
import json
from datetime import datetime
from typing import Any, TypedDict

from django.db import router, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from reliability.models import LONGEST_ERROR, LONGEST_NAME, DeadLetter, State

LONGEST_SHOWN = 10_000  # characters of the arguments; the body has them whole
LETTERS_REMEMBERED = 100  # of one task id, to know a letter that comes a second time
LARGEST_NUMBER = 2**31 - 1  # PostgreSQL's integer
NAMES = ("task", "worker", "queue", "exchange", "routing_key", "content_type", "content_encoding")


class Letter(TypedDict):
    """A message that a worker gave up, as plain JSON. DeadLetter has columns of the same names."""

    letter_id: str  # a UUID, new for each failure: the same letter stored twice counts once
    task_id: str  # the id of the task; a new UUID where the message had none
    task: str  # its name; empty where the message had none
    args: str  # the arguments as JSON; "redacted"; empty where nobody can read them
    kwargs: str  # the same
    reason: str  # one of models.Reason
    error: str  # in one line
    traceback: str
    queue: str  # where it came from and goes when it is requeued
    exchange: str  # of the delivery, for people
    routing_key: str  # the same
    # The message's headers as JSON text: kombu would read meanings into an object that others made.
    headers: str
    body: str  # the message's, without compression; base64 where it is not UTF-8
    body_encoding: str  # "utf-8" or "base64"
    content_type: str
    content_encoding: str
    priority: int | None
    deliveries: int  # how often the message was delivered, as far as known
    worker: str  # the worker's node name
    sent_at: str | None  # ISO 8601 with an offset
    failed_at: str  # ISO 8601 with an offset
    complete: bool  # False: the body is missing or cut, so the message cannot be requeued


def store(letter: Letter) -> None:
    """Write the letter into the row of its task id: a second failure counts, a second copy does not.

    A row that was requeued is dead again. One whose requeue is asked for, but not done, still waits for it.
    Raises django.db.Error when the database is away or refuses even this; ValueError and TypeError when
    the letter is none.
    """
    columns = columns_of(letter)
    _store(columns, clean(letter["letter_id"], 64))


def store_least(letter: Letter, problem: Exception) -> None:
    """Write no more than that there was a letter, and why the rest of it could not be stored.

    Raises KeyError or TypeError when the letter is none.
    """
    letter_id = letter["letter_id"]
    columns = columns_of(
        {
            "task_id": letter.get("task_id") or letter_id,
            "task": letter.get("task", ""),
            "reason": letter.get("reason", ""),
            "queue": letter.get("queue", ""),
            "error": f"The rest could not be stored: {type(problem).__name__}: {problem}",
            "complete": False,
        }
    )
    _store(columns, clean(letter_id, 64))


def _store(columns: dict[str, Any], letter_id: str) -> None:
    task_id = columns.pop("task_id")
    database = router.db_for_write(DeadLetter)
    with transaction.atomic(using=database):
        row, created = (
            DeadLetter.objects.using(database)
            .select_for_update()
            .get_or_create(
                task_id=task_id,
                defaults={**columns, "first_failed_at": columns["failed_at"], "letters": [letter_id]},
            )
        )
        if created or letter_id in row.letters:
            return
        for name, value in columns.items():
            setattr(row, name, value)
        if row.state == State.REQUEUED:
            row.state = State.DEAD
        row.requeue_error = ""
        row.failures += 1
        row.letters = [*row.letters, letter_id][-LETTERS_REMEMBERED:]
        row.save(using=database)


def columns_of(letter: Any) -> dict[str, Any]:
    """Return the letter as values that the database takes. What an older version left out is empty."""
    body, encoding = _body(letter.get("body", ""), letter.get("body_encoding", "utf-8"))
    priority = letter.get("priority")
    return {
        **{name: clean(letter.get(name, ""), LONGEST_NAME) for name in NAMES},
        "task_id": _short_id(letter["task_id"]),
        "reason": clean(letter["reason"], 32),
        "error": clean(" ".join(str(letter.get("error", "")).split()), LONGEST_ERROR),
        "args": clean(letter.get("args", ""), LONGEST_SHOWN),
        "kwargs": clean(letter.get("kwargs", ""), LONGEST_SHOWN),
        "traceback": clean(letter.get("traceback", "")),
        "headers": json.dumps(json.loads(letter.get("headers", "{}"))),
        "body": body,
        "body_encoding": encoding,
        "priority": None if priority is None else min(max(int(priority), 0), 255),
        "deliveries": min(max(int(letter.get("deliveries", 1)), 0), LARGEST_NUMBER),
        "sent_at": _moment(letter.get("sent_at")),
        "failed_at": _moment(letter.get("failed_at")) or timezone.now(),
        "complete": bool(letter.get("complete", True)),
    }


def clean(found: Any, longest: int | None = None) -> str:
    """Return text that PostgreSQL takes: a sign for NUL and for half a surrogate pair, cut to `longest`."""
    text = str(found).replace("\0", "\N{SYMBOL FOR NULL}")
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def _short_id(task_id: Any) -> str:
    """Return the id. One that is too long, or had to be changed, stays unique by its digest."""
    text = clean(task_id)
    if text == task_id and len(text) <= LONGEST_NAME:
        return text
    digest = hashlib.sha256(str(task_id).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[: LONGEST_NAME - len(digest) - 1]} {digest}"


def _body(text: str, encoding: str) -> tuple[str, str]:
    """Return the body so that nothing of it changes: base64 where the database would refuse the text."""
    if encoding == "base64" or clean(text) == text:
        return text, encoding
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode(), "base64"


def _moment(text: Any) -> datetime | None:
    """Return a time that can be stored and read again, None for all others."""
    try:
        moment = parse_datetime(text)
    except (TypeError, ValueError):
        return None
    return moment if moment and timezone.is_aware(moment) and 1970 <= moment.year < 9999 else None
