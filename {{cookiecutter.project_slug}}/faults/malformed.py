"""Messages that no Celery would send, made at random. None may run, stop a worker, or vanish."""

import json
import pickle
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

TASK = "faults.tasks.work"  # a real one: that none of these runs is the consumer's doing
STORE = "reliability.tasks.store_dead_letter"
WELL = [["malformed"], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


class Malformed(NamedTuple):
    """What is put on the queue: a message, or with `raw` the bytes that Redis keeps for one."""

    kind: str
    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    headers: dict[str, Any] = {}  # never changed
    raw: bool = False


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def good_headers(chance: random.Random) -> dict[str, Any]:
    """Return headers that Celery would write."""
    return {"lang": "py", "task": TASK, "id": str(uuid.UUID(int=chance.getrandbits(128))), "retries": 0}


def junk(chance: random.Random) -> Any:
    """Return a value of a type that nobody expects, as JSON and AMQP know it."""
    values: list[Any] = [
        *(chance.randrange(-(2**31), 2**31), chance.random(), True, [], {}, [[]], {"a": {"b": []}}),
        *("", "\x00", "\ud7ff\uffff", "🐜" * chance.randrange(1, 20), chance.randbytes(8).hex()),
    ]
    return chance.choice(values)


def bad_mark(chance: random.Random) -> dict[str, Any]:
    """Return what kombu takes for a date, a number or bytes, and is none."""
    marks: list[tuple[Any, Any]] = [
        *(("datetime", 5), ("date", None), ("time", []), ("decimal", "abc"), ("bytes", 1), ("base64", "a")),
        *(("uuid", {"a": 1}), ("no such type", 5), ([], 5)),
    ]
    return dict(zip(("__type__", "__value__"), chance.choice(marks), strict=True))


def marked(chance: random.Random) -> Malformed:
    """Such a thing among the arguments, or in place of a header."""
    headers = good_headers(chance)
    if chance.random() < 0.5:
        header = chance.choice(["task", "id", "eta", "expires", "timelimit"])
        return Malformed("", json.dumps(WELL).encode(), headers=headers | {header: bad_mark(chance)})
    return Malformed("", json.dumps([[bad_mark(chance)], {}, {}]).encode(), headers=headers)


def no_letter(chance: random.Random) -> Malformed:
    """For the task that stores dead letters, and none: it would be told of its own failure."""
    number = chance.getrandbits(64)
    bodies: list[Any] = [
        *(junk(chance), [[junk(chance)], {}, {}], [[bad_mark(chance)], {}, {}]),
        [[{"letter_id": number}], {}, {}],
        [[{"letter_id": 5, "task_id": [number, junk(chance)], "reason": None, "headers": "{"}], {}, {}],
    ]
    body = json.dumps(chance.choice(bodies)).encode()
    return Malformed("", chance.choice([body, body, b"{"]), headers=good_headers(chance) | {"task": STORE})


def random_bytes(chance: random.Random) -> Malformed:
    """Bytes, of any declared type."""
    types = ["application/json", "text/plain", "application/data", "", "a/b", "application/x-yaml"]
    encodings = ["utf-8", "binary", "latin-1", "utf-99", "", "base64"]
    body = b"\xff" + chance.randbytes(chance.randrange(200))
    return Malformed("", body, chance.choice(types), chance.choice(encodings), good_headers(chance))


def wrong_content_type(chance: random.Random) -> Malformed:
    """A good body, declared as something that is not accepted."""
    types = [
        "application/x-python-serialize",
        "application/x-yaml",
        "application/x-msgpack",
        "application/gzip",
    ]
    return Malformed("", json.dumps(WELL).encode(), chance.choice(types), "utf-8", good_headers(chance))


def missing_header(chance: random.Random) -> Malformed:
    """Without the task's name, or without its id, or without any."""
    headers = good_headers(chance)
    for name in chance.choice([["task"], ["id"], list(headers)]):
        del headers[name]
    return Malformed("", json.dumps(WELL).encode(), headers=headers)


def wrong_header(chance: random.Random) -> Malformed:
    """A header that should be a name, a date or a pair of numbers, and is something else."""
    header = chance.choice(["task", "id", "eta", "expires", "timelimit"])
    wrong: dict[str, list[Any]] = {
        "task": [7, [], {}, True, 1.5],
        "id": [[], {}],
        "eta": ["tomorrow", "2026-99-99T00:00:00", [], {}, "\x00", "-1"],
        "expires": ["soon", [], {}, "2026-13-01"],
        "timelimit": [["a", "b"], "soon", 5, [1], {"a": 1}, [[], []]],
    }
    headers = good_headers(chance) | {header: chance.choice(wrong[header])}
    return Malformed("", json.dumps(WELL).encode(), headers=headers)


def bad_json(chance: random.Random) -> Malformed:
    """JSON that was cut off, or is nested too deeply, or is none."""
    text = json.dumps(WELL)
    bodies = [
        text[: chance.randrange(len(text))],
        "[" * 100_000,
        text + chance.choice("]},x"),
        "\x00",
        "{'single': 'quotes'}",
        '"' + chr(chance.randrange(1, 32)) + '"',
    ]
    return Malformed("", chance.choice(bodies).encode(), headers=good_headers(chance))


def wrong_shape(chance: random.Random) -> Malformed:
    """JSON that is no list of arguments, named arguments and the rest."""
    body: Any = chance.choice(
        [
            *(junk(chance), [], [[]], [["malformed"], {}], [*WELL, 1]),
            *([["malformed"], junk_list(chance), {}], [chance.randrange(9), {}, {}], [{}, ["malformed"], {}]),
            *([["malformed"], {}, chance.choice([5, "x", [1]])], ["malformed", "a", "b"]),
        ]
    )
    return Malformed("", json.dumps(body).encode(), headers=good_headers(chance))


def junk_list(chance: random.Random) -> list[Any]:
    """Return a list of a few odd values."""
    return [junk(chance) for _ in range(chance.randrange(1, 4))]


def bad_compression(chance: random.Random) -> Malformed:
    """Said to be compressed, and is not, or in a way that nobody knows."""
    headers = good_headers(chance) | {"compression": chance.choice(["application/x-gzip", "a/b", "x", 5])}
    return Malformed("", json.dumps(WELL).encode(), headers=headers)


def bad_old_protocol(chance: random.Random) -> Malformed:
    """Celery's first protocol, with wrong types in it."""
    good = {
        "task": TASK,
        "id": str(uuid.UUID(int=chance.getrandbits(128))),
        "args": ["malformed"],
        "kwargs": {},
    }
    wrong = {"kwargs": [1], "args": 5, "id": [], "task": 5, "eta": "tomorrow", "timelimit": "x"}
    name = chance.choice(list(wrong))
    return Malformed("", json.dumps(good | {name: wrong[name]}).encode())


def traps(chance: random.Random, path: Path) -> Iterator[Malformed]:
    """Yield messages that would make the file `path` if anybody executed them."""
    pickled = pickle.dumps(((Trap(path),), {}, {}))
    yaml = (
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{path}']]".encode()
    )
    for declared in ("application/x-python-serialize", "application/json", "application/data"):
        yield Malformed("pickle", pickled, declared, "binary", good_headers(chance))
    for declared in ("application/x-yaml", "application/json"):
        yield Malformed("yaml", yaml, declared, "utf-8", good_headers(chance))


KINDS: list[Callable[[random.Random], Malformed]] = [
    *(random_bytes, wrong_content_type, missing_header, wrong_header, bad_json),
    *(wrong_shape, bad_compression, bad_old_protocol, marked, no_letter),
]


def messages(chance: random.Random, number: int, trap: Path) -> list[Malformed]:
    """Return that many messages in any order, a very large one and those that would make `trap` too."""
    large = Malformed("50 MB", b"\xff" * (50 * 2**20), headers=good_headers(chance))
    made = [large, *traps(chance, trap)]
    while len(made) < number:
        kind = KINDS[len(made) % len(KINDS)]
        made.append(kind(chance)._replace(kind=kind.__name__))
    chance.shuffle(made)
    return made
