"""What is on a queue in Redis need not be a message: anybody can push bytes there, and a worker ends on them.

Here they become a message that nobody can read, and take the way of all undecodable ones.
"""

import base64
import uuid
from importlib.util import find_spec
from typing import Any

from celery.signals import celeryd_init
from kombu.transport import virtual
from kombu.utils.json import loads

from reliability.conf import enabled

hand_over: Any = virtual.Transport._deliver
ADDRESS = ("exchange", "routing_key")
DEEPEST = 100  # levels of lists and mappings in a message
ENCODINGS = {None, "utf-8", "base64"}  # of a body inside the message


def read(text: str) -> Any:
    """Return what kombu's transport keeps as JSON, or a message that nobody can read."""
    try:
        found = loads(text)
    except Exception:  # kombu makes dates, numbers and bytes of what is marked so, whatever it is
        return unreadable(text)
    many = text.count("[") + text.count("{") > DEEPEST  # mostly not, as the body is base64
    return unreadable(text) if many and _is_deep(found) else found


def _is_deep(found: Any) -> bool:
    """Return whether this is nested so deeply that kombu might fail to write it again."""
    level = [found]
    for _ in range(DEEPEST + isinstance(found, list)):  # kombu keeps an unacknowledged message in a list
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = [one for values in inner for one in values]
    return bool(level)


def is_message(found: Any) -> bool:
    """Return whether kombu can make a message of this."""
    if not isinstance(found, dict) or not isinstance(found.get("properties"), dict):
        return False
    body, properties = found.get("body"), found["properties"]
    info, encoding = properties.get("delivery_info"), properties.get("body_encoding")
    if not isinstance(info, dict) or not all(isinstance(info.get(key), str) for key in ADDRESS):
        return False
    if not isinstance(found.get("headers"), dict | None) or not isinstance(body, str | None):
        return False
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(encoding, str | None):
        return False
    try:
        base64.b64decode(body or "" if encoding == "base64" else "")
    except ValueError:  # binascii.Error is one, and text that is not ASCII
        return False
    return encoding in ENCODINGS


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


def deliver(transport: Any, found: Any, queue: str) -> None:
    """Hand over whatever JSON was on the queue as a message that can be put back there."""
    message = found if is_message(found) else unreadable(repr(found))
    message["headers"] = message.get("headers") or {}
    info = message["properties"]["delivery_info"]
    if info["exchange"] not in transport.state.exchanges:  # mostly the unnamed one
        info |= {"exchange": "", "routing_key": queue}
    hand_over(transport, message, queue)


def guard(**_: Any) -> None:
    """Have the worker's Redis transport read by `read` and `deliver`, where there is one."""
    if enabled("dead_letters") and find_spec("redis"):
        from kombu.transport import redis

        setattr(redis, "loads", read)  # noqa: B010  # kombu reads every message by this name
        setattr(redis.Transport, "_deliver", deliver)  # noqa: B010  # and delivers it by this one


def connect() -> None:
    """Act when a worker starts."""
    celeryd_init.connect(guard)
