"""An argument that JSON would change, or cannot carry, is refused where it is sent."""

import functools
import inspect
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery.app.task import Task
from kombu.exceptions import EncodeError
from kombu.utils import json

from reliability.publication import EMBEDDED, Publication

if TYPE_CHECKING:
    from reliability.application import Celery

logger = logging.getLogger(__name__)

# What kombu's JSON brings back as it was. An aware datetime comes back as the same instant.
_CARRIED = {str, int, bool, type(None), bytes, datetime, date, UUID}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_CARRIERS = {"celery.map", "celery.starmap"}  # Celery's tasks whose arguments are another task's


class ArgumentError(EncodeError, TypeError):
    """An argument that would not reach the task as it was given.

    An EncodeError, too, so that Celery ends a task as failed whose return value its link cannot be given.
    """


@dataclass
class _Fault:
    """A value that would change: where it is inside the argument, and what it is."""

    value: Any
    path: str = ""


def check(publication: Publication) -> None:
    """Raise ArgumentError for the first argument that would change; a task of another package only warns.

    Looks into links, chains and chords too. Other serializers than JSON are taken at their word.
    """
    if publication.serializer == "json":
        app, options = publication.app, publication.options
        _check(app, publication.name, publication.task, publication.args, publication.kwargs)
        embedded = {option: options[option] for option in EMBEDDED if options.get(option)}
        _check(app, publication.name, publication.task, (), embedded)


def _check(app: "Celery", name: str, task: Task | None, args: Any, kwargs: Any) -> None:
    places = [*enumerate(args or ()), *(kwargs or {}).items()]
    for place, value in places:
        if type(value) not in _CARRIED and (fault := _find(app, value)):
            _refuse(name, task, place, fault)


def _find(app: "Celery", value: Any) -> _Fault | None:
    """Return the first value in here that would change."""
    if isinstance(value, list | tuple):
        return _find_inside(app, enumerate(value))
    if isinstance(value, dict):
        if _is_signature(value):  # its arguments belong to its own task
            _check(app, value["task"], app._tasks.get(value["task"]), value["args"], value["kwargs"])
            options = value["options"]
            return _find_inside(app, ((option, options.get(option)) for option in EMBEDDED))
        if not all(isinstance(key, str) for key in value):
            return _Fault(value)
        if value.keys() != {"__type__", "__value__"}:  # kombu's own marks
            return _find_inside(app, value.items())
    return None if _comes_back(value) else _Fault(value)


def _find_inside(app: "Celery", items: Iterable[tuple[Any, Any]]) -> _Fault | None:
    for key, value in items:
        if type(value) not in _CARRIED and (fault := _find(app, value)):
            return replace(fault, path=f"[{key!r}]{fault.path}")
    return None


def _is_signature(value: dict[Any, Any]) -> bool:
    """Return whether it is a task with arguments, or one that has been JSON, and not somebody's data."""
    kinds = {"task": str, "args": list | tuple, "kwargs": dict, "options": dict}
    return "subtask_type" in value and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def _comes_back(value: Any) -> bool:
    try:
        if type(value) in (float, Decimal):  # all of them do, except "not a number", which equals nothing
            return bool(value == value)
        return bool(json.loads(json.dumps(value)) == value)
    except Exception:  # whatever a class of somebody's says to being encoded or compared
        return False


def _refuse(name: str, task: Task | None, place: int | str, fault: _Fault) -> None:
    argument = _name_of(task, place) + fault.path
    text = (
        f"{name}: JSON does not carry the argument {argument} ({_what(fault.value)}); {_instead(fault.value)}"
    )
    if task is None or name in _CARRIERS or _is_ours(type(task).__module__):
        raise ArgumentError(text)
    _warn(text)


def _name_of(task: Task | None, place: int | str) -> str:
    """Return the parameter's name, or the position where the signature does not tell."""
    if isinstance(place, str):
        return place
    parameters = inspect.signature(task.run).parameters.values() if task else ()
    names = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
    return names[place] if place < len(names) else f"args[{place}]"


def _what(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _instead(value: Any) -> str:
    """Return what to pass instead."""
    from django.db.models import Manager, Model, QuerySet  # not while the settings are being read

    advice: dict[Any, str] = {
        Model: "pass its primary key, .pk, and have the task fetch the row",
        (QuerySet, Manager): "pass a list of primary keys, list(rows.values_list('pk', flat=True))",
        timedelta: "pass seconds, .total_seconds()",
        Enum: "pass its .value",
        PurePath: "pass it as text, str(path)",
        (bytearray, memoryview): "pass bytes",
        (float, Decimal): "pass None for what is not a number",
        Iterable: "pass a list",
    }
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        return "pass a dictionary whose keys are strings"
    if not isinstance(value, dict | type):
        for kind, text in advice.items():
            if isinstance(value, kind):
                return text
    return "pass plain values: text, numbers, None, dates, and lists and dictionaries of them"


@functools.lru_cache(maxsize=256)
def _warn(text: str) -> None:
    """Log it, once for each task and argument: nobody here can change another package."""
    logger.warning("%s", text)


@functools.cache
def _is_ours(module: str) -> bool:
    """Return whether a module is this project's own, and not an installed package's."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)
