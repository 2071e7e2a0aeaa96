"""An argument that JSON would change, or cannot carry, is refused where it is sent."""

import importlib
import logging
import math
import re
import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from celery import chain, group, shared_task
from django.db.models import TextChoices
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from kombu.exceptions import EncodeError

from config.celery import app
from jobs.models import Report
from reliability.arguments import ArgumentError
from tests import senders
from tests.brokers import received
from tests.harness import StartWorker

pytestmark = [pytest.mark.promise("check_arguments"), pytest.mark.usefixtures("broker")]


@shared_task
def archive(subject: Any, options: Any = None, *more: Any, **details: Any) -> None:
    """Take anything."""


class Colour(TextChoices):
    """As a model has it."""

    RED = "red"


class Level(IntEnum):
    """A number with a name."""

    HIGH = 3


class Word(StrEnum):
    """A text with a name."""

    YES = "yes"


class Shape(Enum):
    """Neither text nor number."""

    ROUND = "round"


@dataclass
class Point:
    """A class of somebody's."""

    x: int = 0


Pair = namedtuple("Pair", "a b")

CARRIED = {
    "text": "ü\x00😀",
    "numbers": [1, -(10**30), 1.5, True, None],
    "infinity": math.inf,
    "bytes": b"\xff",
    "tuple": (1, (2, 3)),
    "named tuple": Pair(1, 2),
    "nested": {"a": [{"b": (1, {"c": None})}]},
    "aware datetime": datetime(2026, 1, 2, tzinfo=UTC),
    "aware datetime, twice that night": datetime(
        2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")
    ),
    "aware datetime, odd offset": datetime(2026, 1, 2, tzinfo=timezone(timedelta(seconds=12345))),
    "naive datetime": datetime(2026, 1, 2),  # noqa: DTZ001
    "date": date(2026, 1, 2),
    "time": time(1, 2, 3),
    "UUID": UUID(int=1),
    "Decimal": Decimal("1.10"),
    "choice of a model": Colour.RED,
    "enum that is a text": {Word.YES: Word.YES},
    "enum that is a number": Level.HIGH,
    "translated text": lazystr("Ants"),
    "safe text": mark_safe("<b>"),
    "ordered dictionary": OrderedDict(a=1),
    "defaultdict": defaultdict(list, a=[1]),
    "data that looks like a task": {"subtask_type": 1, "task": 2, "args": 3, "kwargs": 4, "options": 5},
    "data with a word of Celery's": {"subtask_type": None},
}

REFUSED = {
    "model instance": (Report(pk=1), ".pk"),
    "queryset": (Report.objects.none(), "values_list"),
    "manager": (Report.objects, "values_list"),
    "set": ({1}, "a list"),
    "frozenset": (frozenset({1}), "a list"),
    "generator": ((number for number in range(3)), "a list"),
    "range": (range(3), "a list"),
    "deque": (deque([1]), "a list"),
    "keys of a dictionary": ({"a": 1}.keys(), "a list"),
    "timedelta": (timedelta(1), "total_seconds"),
    "integer keys": ({1: "a"}, "keys are strings"),
    "None as a key": ({None: "a"}, "keys are strings"),
    "keys that become one": ({1: "a", "1": "b"}, "keys are strings"),
    "date as a key": ({date(2026, 1, 2): 1}, "keys are strings"),
    "enum": (Shape.ROUND, ".value"),
    "path": (Path("/tmp"), "str(path)"),  # noqa: S108
    "bytearray": (bytearray(b"a"), "pass bytes"),
    "not a number": (math.nan, "None"),
    "decimal that is not a number": (Decimal("sNaN"), "None"),
    "object": (Point(), "plain values"),
    "class": (Point, "plain values"),
    "function": (print, "plain values"),
    "complex": (1j, "plain values"),
    "exception": (ValueError("a"), "plain values"),
    "what kombu takes for a date": ({"__type__": "date", "__value__": "2026-01-02"}, "plain values"),
    "what kombu takes for a mistake": ({"__type__": "?", "__value__": ""}, "plain values"),
}


def as_it_arrives(value: Any) -> Any:
    """Return the value with lists for tuples, and datetimes as instants, to be compared."""
    if isinstance(value, list | tuple):
        return [as_it_arrives(item) for item in value]
    if isinstance(value, dict):
        return {key: as_it_arrives(item) for key, item in value.items()}
    return value.timestamp() if isinstance(value, datetime) else value


@pytest.mark.parametrize("value", CARRIED.values(), ids=CARRIED)
def test_what_json_carries_arrives_as_it_was(value: Any) -> None:
    archive.delay(value, [value], also={"value": value})
    (message,) = received()
    (args, kwargs, _) = message.payload
    expected = as_it_arrives(value)
    assert as_it_arrives([args, kwargs]) == [[expected, [expected]], {"also": {"value": expected}}]


@pytest.mark.parametrize(("value", "advice"), REFUSED.values(), ids=REFUSED)
def test_what_json_would_change_is_refused_with_advice(value: Any, advice: str) -> None:
    """Each place is named. The value itself may be a secret, and shows only in its type."""
    places: dict[str, Callable[[], Any]] = {
        "subject": lambda: archive.delay(value),
        "options['since']": lambda: archive.delay(1, options={"since": value}),
        "subject[1]['a']": lambda: archive.delay([0, {"a": value}]),
        "args[3]": lambda: archive.delay(1, 2, 3, value),
        "more": lambda: archive.delay(1, more=value),
    }
    for place, send in places.items():
        with pytest.raises(ArgumentError, match=re.escape(advice)) as raised:
            send()
        text = f"tests.test_arguments.archive: JSON does not carry the argument {place} ("
        assert str(raised.value).startswith(text)
    assert received() == []


def test_the_error_is_what_callers_may_expect() -> None:
    """A TypeError as for other wrong arguments, and the error of kombu that Celery knows."""
    assert issubclass(ArgumentError, TypeError)
    assert issubclass(ArgumentError, EncodeError)


WAYS: dict[str, Callable[[Any], Any]] = {
    "send_task": lambda value: app.send_task("of.another.project", kwargs={"subject": value}),
    "link": lambda value: archive.apply_async((1,), link=archive.s(subject=value)),
    "error link": lambda value: archive.apply_async((1,), link_error=[archive.s(subject=value)]),
    "link of a link": lambda value: archive.apply_async(
        (1,), link=archive.s().on_error(archive.s(subject=value))
    ),
    "chain": lambda value: chain(archive.s(1), archive.si(2), archive.si(subject=value))(),
    "group": lambda value: group(archive.s(1), archive.s(subject=value))(),
    "group in a chain": lambda value: chain(archive.s(1), group(archive.s(2), archive.s(subject=value)))(),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_send_is_overlooked(way: str) -> None:
    with pytest.raises(ArgumentError, match="the argument subject"):
        WAYS[way]({1: "a"})
    WAYS[way]({"1": "a"})


def test_what_chunks_carry_is_the_tasks_own() -> None:
    """Although Celery sends them as a task of its own."""
    with pytest.raises(
        ArgumentError, match=re.escape("celery.starmap: JSON does not carry the argument it[0][0]")
    ):
        archive.chunks([({1: "a"},)], 1)()


def test_positions_count_where_the_parameters_are_not_known() -> None:
    with pytest.raises(
        ArgumentError, match=re.escape("of.another.project: JSON does not carry the argument args[1]")
    ):
        app.send_task("of.another.project", (1, {1: 2}))


def test_other_serializers_are_taken_at_their_word() -> None:
    archive.apply_async(({1},), serializer="pickle")


def test_a_return_value_that_the_next_task_cannot_be_given_fails_the_task(start_worker: StartWorker) -> None:
    worker = start_worker("--include", "tests.senders")
    chain(senders.give_integer_keys.s(), senders.total.s())()
    problem = "ArgumentError: tests.senders.total: JSON does not carry the argument numbers"
    assert worker.wait_for_failure().startswith(problem)


@pytest.fixture
def foreign_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task of an installed package."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "foreign_package.py").write_text(
        "from celery import shared_task\n\n@shared_task\ndef work(**options):\n    pass\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("foreign_package").work
    del sys.modules["foreign_package"], app.tasks["foreign_package.work"]


def test_a_task_of_another_package_only_warns(foreign_task: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody here can change how it is sent. It warns once, and what fails with Celery still fails."""
    foreign_task.delay(rows={1: "a"})
    foreign_task.delay(rows={2: "b"})
    assert [message.payload[1] for message in received()] == [{"rows": {"1": "a"}}, {"rows": {"2": "b"}}]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["the argument rows (dict)" in record.getMessage() for record in warnings] == [True]
    with pytest.raises(EncodeError):
        foreign_task.delay(rows={1})


def test_the_check_can_be_switched_off(settings: Any) -> None:
    settings.RELIABILITY = {"check_arguments": False}
    archive.delay({1: "a"})
    (message,) = received()
    assert message.payload[0] == [{"1": "a"}]
