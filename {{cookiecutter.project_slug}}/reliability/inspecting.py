"""How the admin shows dead letters: a filter, and fields that hold whatever others sent."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.timesince import timesince

from reliability.letters import clean
from reliability.models import REDACTED, DeadLetter, Reason, State

LONGEST_SHOWN = 20_000  # characters: the browser is to show a page, and a body may have 50 MB
# Of the page that shows one letter, what a person on call needs first.
_PROBLEM = ("task", "task_id", "state", "reason", "error", "long_args", "long_kwargs", "long_traceback")
_TIMES = ("sent_at", "first_failed_at", "failed_at", "failures", "deliveries", "worker")
_REQUEUE = ("can_be_requeued", "requeued_at", "requeued_by", "requeue_error")
_WAY = ("queue", "exchange", "routing_key", "priority", "content_type", "content_encoding")
_CONTENT = ("long_headers", "body_encoding", "long_body")
FIELDSETS: Any = (
    (None, {"fields": _PROBLEM}),
    ("Times", {"fields": _TIMES}),
    ("Requeue", {"fields": _REQUEUE}),
    ("Message", {"classes": ("collapse",), "fields": _WAY + _CONTENT}),
)


class StateFilter(admin.SimpleListFilter):
    """By state; without a choice the letters that are not dealt with."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [*((str(value), str(label).capitalize()) for value, label in State.choices), ("all", "All")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Name what the list shows without a choice: Django would call it All."""
        for number, choice in enumerate(super().choices(changelist)):
            yield choice if number else {**choice, "display": "Open: dead or being requeued"}

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """Return the rows of the choice."""
        if self.value() == "all":
            return queryset
        return queryset.filter(state__in=[self.value()] if self.value() else [State.DEAD, State.REQUEUEING])


def as_it_is(name: str, label: str) -> Any:
    """Return a field for the inspect page: the text of a column with its line breaks, JSON indented."""

    @admin.display(description=label)
    def field(_: Any, letter: DeadLetter) -> str:
        text = getattr(letter, name)
        with suppress(ValueError, RecursionError):  # a traceback, for example
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        text = Truncator(clean(text)).chars(LONGEST_SHOWN)
        return format_html('<pre class="deadletter">{}</pre>', text) if text else "-"

    return field


@admin.display(description="arguments")
def arguments_in_short(letter: DeadLetter) -> str:
    """Return the beginning of the arguments, for the list."""
    found = [text for text in (letter.args, letter.kwargs) if text not in {"[]", "{}"}]
    return Truncator(" ".join(found[:1] if REDACTED in found else found)).chars(60)


@admin.display(description="problem", ordering="error")
def problem_in_short(letter: DeadLetter) -> str:
    """Return what went wrong, for the list: the reason where it tells more, and the error."""
    reason = "" if letter.reason == Reason.FAILED else letter.get_reason_display()
    return Truncator(": ".join(filter(None, (reason, letter.error)))).chars(100)


@admin.display(description="failed", ordering="failed_at")
def age(letter: DeadLetter) -> str:
    """Return how long ago it failed, for the list: a person on call thinks in that."""
    return f"{timesince(letter.failed_at, depth=1)} ago"
