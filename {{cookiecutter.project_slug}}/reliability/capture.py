"""Keep what cannot run: a dead letter is sent as a message of its own before the old one is acknowledged.

This runs in the worker's main process, whose event loop must never wait for a database. The task
`reliability.tasks.store_dead_letter` writes the row; its message waits while PostgreSQL is away.
"""

import base64
import json
import uuid
from typing import Any

from celery import Celery
from celery.utils.log import get_logger
from django.utils import timezone
from kombu.exceptions import EncodeError, OperationalError
from kombu.message import Message

from reliability import messages, pulse, signals
from reliability.conf import value
from reliability.letters import LONGEST_SHOWN, Letter

logger = get_logger(__name__)
STORE = "reliability.tasks.store_dead_letter"
PASSING = {"failed", "time_limit", "worker_lost"}  # what may end the task STORE, whatever its letter
PAUSE = 10  # seconds before it is tried again
LARGEST_UNDECODABLE = 1024**2  # bytes; of a larger body that nobody can read the beginning is kept


def keep(
    app: Celery, message: Message, reason: str, error: str, traceback: str = "", worker: str = ""
) -> bool:
    """Send the dead letter of `message`. Return whether the broker has it: only then acknowledge that."""
    pulse.beat()  # each send to a silent broker takes seconds, and there may be many
    letter = build(message, reason, error, traceback, worker)
    try:
        if reason in PASSING and (stored := _letter_inside(message)):
            app.send_task(STORE, [stored], task_id=letter["task_id"], countdown=PAUSE)
        else:
            app.send_task(STORE, [letter], task_id=letter["letter_id"])
    except (OperationalError, EncodeError):
        logger.critical("Dead letter of %s[%s] not kept", letter["task"], letter["task_id"], exc_info=True)
        return False
    signals.kept.send(task=letter["task"], queue=letter["queue"], reason=reason)
    logger.error("Dead letter: %s[%s], %s: %s", letter["task"], letter["task_id"], reason, letter["error"])
    return True


def _letter_inside(message: Message) -> Any:
    """Return the dead letter that a message of STORE brings: that is never given up. None of all others."""
    if messages.headers(message).get("task") != STORE or not isinstance(message.payload, list):
        return None
    args = message.payload[0]
    return args[0] if args and isinstance(args[0], dict) and "letter_id" in args[0] else None


def build(message: Message, reason: str, error: str, traceback: str, worker: str) -> Letter:
    """Return all that is needed to understand the message, and to send it again as it was."""
    task = messages.header_text(message, "task")
    headers = messages.kept_headers(message)
    body = messages.body(message)
    # A body holds the links of its task, with their arguments.
    redacted = any(name == task or f'"{name}"'.encode() in body for name in value("redact"))
    too_large = reason == "undecodable" and len(body) > LARGEST_UNDECODABLE
    if redacted:  # an error's text may repeat an argument: its type is all that is kept
        body, error, traceback = b"", error.partition("(")[0].partition(":")[0], ""
        headers |= {"argsrepr": "(redacted)", "kwargsrepr": "{redacted}"}
    if too_large:
        body = body[:LARGEST_UNDECODABLE]
    text, encoding = _text(body)
    headers_as_text = _json(headers)
    args, kwargs = ("redacted", "redacted") if redacted else _arguments(text)
    info = message.delivery_info or {}
    priority = (message.properties or {}).get("priority")
    return Letter(
        letter_id=str(uuid.uuid4()),
        task_id=messages.header_text(message, "id") or str(uuid.uuid4()),
        task=task,
        args=args,
        kwargs=kwargs,
        reason=reason,
        error=error,
        traceback=traceback,
        queue=messages.queue_name(message),
        exchange=str(info.get("exchange") or ""),
        routing_key=messages.queue_name(message),
        headers=headers_as_text or "{}",
        body=text,
        body_encoding=encoding,
        content_type=str(message.content_type or ""),
        content_encoding=str(message.content_encoding or ""),
        priority=priority if isinstance(priority, int) else None,
        deliveries=messages.deliveries(message),
        worker=worker,
        sent_at=messages.header_text(message, "sent_at") or None,
        failed_at=timezone.now().isoformat(),
        complete=bool(headers_as_text) and not (redacted or too_large),
    )


def _text(body: bytes) -> tuple[str, str]:
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"


def _arguments(text: str) -> tuple[str, str]:
    """Return what a person reads: the arguments as JSON, empty where the body is none of Celery's."""
    try:
        args, kwargs, _ = json.loads(text)
        shown = (json.dumps(given, ensure_ascii=False)[:LONGEST_SHOWN] for given in (args, kwargs))
        return next(shown), next(shown)
    except (ValueError, TypeError, RecursionError):
        return "", ""


def _json(found: Any) -> str:
    """Return headers as JSON, what it has not as text; empty when they are nested too deep for that."""
    try:
        return json.dumps(found, default=repr, skipkeys=True)
    except RecursionError:
        return ""
