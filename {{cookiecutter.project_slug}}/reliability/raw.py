"""What is on a queue in Redis need not be a message: anybody can push bytes there, and a worker ends on them.

Here they become a message that nobody can read, and take the way of all undecodable ones.
"""

import base64
import binascii
import uuid
from importlib.util import find_spec
from typing import Any

from celery.signals import celeryd_init
from kombu.transport import virtual
from kombu.utils.json import loads

from reliability.conf import enabled

ENCODINGS = {None, "utf-8", "base64"}  # of a body inside the message


def read(text: str) -> Any:
    """Return what kombu's transport keeps as JSON, or a message that nobody can read."""
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return unreadable(text)


def is_message(found: Any) -> bool:
    """Return whether kombu can make a message of this."""
    if not isinstance(found, dict) or not isinstance(found.get("properties"), dict):
        return False
    body, properties = found.get("body"), found["properties"]
    info, encoding = properties.get("delivery_info"), properties.get("body_encoding")
    if not isinstance(info, dict) or not {"exchange", "routing_key"} <= info.keys():
        return False
    if not isinstance(found.get("headers"), dict | None) or not isinstance(body, str | None):
        return False
    if not isinstance(properties.get("delivery_tag"), str) or encoding not in ENCODINGS:
        return False
    try:
        base64.b64decode(body or "" if encoding == "base64" else "")
    except binascii.Error:
        return False
    return True


def unreadable(text: str) -> dict[str, Any]:
    """Return a message with this text as its body. Bytes that are not UTF-8 kombu has replaced already."""
    return {
        "body": base64.b64encode(text.encode(errors="replace")).decode(),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": ""},
        },
    }


class Message(virtual.Message):
    """A message of whatever JSON was on the queue."""

    def __init__(self, payload: Any, **options: Any) -> None:
        """Take what kombu can make no message of as the body of one."""
        super().__init__(payload if is_message(payload) else unreadable(repr(payload)), **options)


def guard(**_: Any) -> None:
    """Have the worker's Redis transport read by `read` and `Message`, where there is one."""
    if enabled("dead_letters") and find_spec("redis"):
        from kombu.transport import redis

        setattr(redis, "loads", read)  # noqa: B010  # kombu reads every message by this name
        redis.Channel.Message = Message


def connect() -> None:
    """Act when a worker starts."""
    celeryd_init.connect(guard)
