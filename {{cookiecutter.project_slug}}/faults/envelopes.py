"""What is on a queue in Redis and is no message of kombu's, made at random."""

import json
import random
import uuid
from typing import Any

from faults.malformed import Malformed, bad_mark, junk


def bad_envelope(chance: random.Random) -> Malformed:
    """What kombu keeps around a message in Redis, cut off or of wrong types."""
    info = {"exchange": "", "routing_key": "celery"}
    properties = {
        "delivery_tag": uuid.UUID(int=chance.getrandbits(128)).hex,
        "delivery_info": info,
        "body_encoding": "base64",
    }
    envelope = {
        "body": chance.choice(["W10=", None]),
        "headers": chance.choice([{}, None, {"x-death": junk(chance)}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": properties,
    }
    wrong: list[Any] = [
        {**envelope, chance.choice(list(envelope)): chance.choice([junk, bad_mark])(chance)},
        {other: value for other, value in envelope.items() if other != "properties"},
        {**envelope, "properties": {**properties, "body_encoding": "rot13"}},
        {**envelope, "properties": {**properties, chance.choice(list(properties)): junk(chance)}},
        {**envelope, "properties": {**properties, "delivery_info": {**info, chance.choice(list(info)): 5}}},
        {**envelope, "body": chance.choice(["not base64!", "ä"])},
        {**envelope, "body": None, "content-encoding": chance.choice([5, [], "\x00", "base64"])},
        chance.choice([junk, bad_mark])(chance),
    ]
    bodies = [
        *(json.dumps(choice).encode() for choice in wrong),
        json.dumps(envelope).encode()[:-9],
        b"[" * (depth := chance.randrange(50, 1000)) + b"]" * depth,
        chance.randbytes(50),
        b"",
    ]
    return Malformed("", chance.choice(bodies), raw=True)
