"""Dead letters on the command line: `manage.py deadletters list`, `show`, `requeue`, `discard`.

Exit codes: 0 done; 1 nothing matched; 2 wrong usage; 3 something could not be requeued.
"""

import argparse
import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.app import app_or_default
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from kombu.exceptions import OperationalError

from reliability import requeueing
from reliability.models import DeadLetter, Reason, State

NOTHING_MATCHED, WRONG_USAGE, NOT_ALL_REQUEUED = 1, 2, 3
LISTED = 50  # rows, without --limit
SHORT = ("failed_at", "state", "reason", "failures", "queue", "task", "task_id", "error")
LONG = tuple(field.name for field in DeadLetter._meta.concrete_fields if field.name not in {"id", "letters"})


def moment(text: str) -> datetime:
    """Return the time that is meant: `90s`, `30m`, `2h` or `7d` ago, or ISO 8601 (without a zone: UTC)."""
    if ago := re.fullmatch(r"(\d{1,6})([smhd])", text):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
        return timezone.now() - timedelta(**{unit: int(ago[1])})
    found = parse_datetime(text) or parse_datetime(f"{text}T00:00")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is neither like 2h nor like 2026-11-23T04:30")
    return found if timezone.is_aware(found) else found.replace(tzinfo=UTC)


def printable(text: object) -> str:
    """Return the text for a terminal: what others sent must not move its cursor."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in str(text))


def as_json(letter: DeadLetter, names: tuple[str, ...]) -> str:
    """Return one line; headers are an object, times ISO 8601."""
    values = {name: getattr(letter, name) for name in names}
    if "headers" in values:
        values["headers"] = json.loads(values["headers"])
    return json.dumps(values, default=datetime.isoformat)


class Command(BaseCommand):
    """What the admin does, for a terminal and for scripts. It requeues by itself, without a worker."""

    help = "List, show, requeue or discard dead letters: tasks that could not run."
    requires_system_checks: list[str] = []  # some ask servers; this must work when those are away

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the four commands; all share the filters."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="list|show|requeue|discard")
        for name, state, text in (
            ("list", "dead", f"one line for each, the newest first; {LISTED} without --limit"),
            ("show", "any", "all that is known of each"),
            ("requeue", "dead", "send the messages again: same id, same queue; the oldest first"),
            ("discard", "dead", "delete them for ever; the oldest first"),
        ):
            command = commands.add_parser(name, help=text, description=text)
            command.add_argument("--id", nargs="+", metavar="ID", help="ids of tasks")
            command.add_argument("--task", help="the task's full name")
            command.add_argument("--reason", choices=Reason.values)
            command.add_argument("--queue")
            command.add_argument("--since", type=moment, help="failed since: 2h (ago), 7d, 2026-11-23T04:30")
            command.add_argument("--until", type=moment, help="failed until then")
            command.add_argument("--all", action="store_true", help="no filter")
            command.add_argument(
                "--state", choices=[*State.values, "any"], default=state, help="default: %(default)s"
            )
            command.add_argument("--limit", type=int, help="no more than so many")
            if name in {"list", "show"}:
                command.add_argument("--json", action="store_true", help="a JSON object on each line")
            else:
                command.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def handle(self, *_: Any, command: str, **options: Any) -> None:
        """Run one of them. CommandError with one of the exit codes."""
        filters = {
            "task_id__in": options["id"],
            "task": options["task"],
            "reason": options["reason"],
            "queue": options["queue"],
            "failed_at__gte": options["since"],
            "failed_at__lte": options["until"],
        }
        given = {name: value for name, value in filters.items() if value}
        if not given and not options["all"] and command != "list":
            raise CommandError(f"{command} what? Give a filter, or --all.", returncode=WRONG_USAGE)
        if given and options["all"]:
            raise CommandError("Give filters or --all, not both.", returncode=WRONG_USAGE)
        if options["limit"] is not None and options["limit"] < 1:
            raise CommandError("--limit must be 1 or more.", returncode=WRONG_USAGE)
        if options["state"] != "any":
            given["state"] = options["state"]
        rows = DeadLetter.objects.filter(**given)
        if not rows.exists():
            raise CommandError(
                f"No dead letter matches (state: {options['state']}).", returncode=NOTHING_MATCHED
            )
        getattr(self, command)(rows, options)

    def list(self, rows: QuerySet[DeadLetter], options: dict[str, Any]) -> None:
        """Print one line for each."""
        limit = options["limit"] or LISTED
        found = rows.only(*SHORT)[:limit]
        if options["json"]:
            for letter in found:
                self.stdout.write(as_json(letter, SHORT))
        else:
            lines = [SHORT, *(self._cells(letter) for letter in found)]
            widths = [max(len(line[column]) for line in lines) for column in range(len(SHORT) - 1)]
            for *cells, error in lines:
                padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
                self.stdout.write("  ".join([*padded, error]))
        if (count := rows.count()) > limit:
            self.stderr.write(f"{limit:,} of {count:,}; --limit shows more.")

    def _cells(self, letter: DeadLetter) -> tuple[str, ...]:
        when = f"{letter.failed_at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        others = (printable(getattr(letter, name)) for name in SHORT[1:-1])
        return (when, *others, printable(letter.error)[:120])

    def show(self, rows: QuerySet[DeadLetter], options: dict[str, Any]) -> None:
        """Print all that is known of each; long texts below their names."""
        for letter in rows[: options["limit"]].iterator(chunk_size=10):
            if options["json"]:
                self.stdout.write(as_json(letter, LONG))
                continue
            for name in LONG:
                text = printable(getattr(letter, name)).rstrip()
                lines = text.splitlines()
                self.stdout.write(f"{name + ':':18}{text}" if len(lines) < 2 else f"{name}:\n{text}")
            self.stdout.write("")

    def requeue(self, rows: QuerySet[DeadLetter], options: dict[str, Any]) -> None:
        """Send the messages again, here and now."""
        rows = self._oldest(rows, options["limit"])
        incomplete = rows.filter(complete=False).count()
        rows = rows.filter(complete=True)
        count, last, sent, refused, told = rows.count(), 0, 0, 0, time.monotonic()
        if options["dry_run"]:
            self._say_what(rows, f"Would requeue {count:,}")
        else:
            by = f"deadletters on {socket.gethostname()}"
            try:
                while (done := requeueing.requeue_next(rows.filter(pk__gt=last), app_or_default(), by)).last:
                    last, sent, refused = done.last, sent + done.sent, refused + done.refused
                    if time.monotonic() > told + 1:
                        told = time.monotonic()
                        self.stderr.write(f"{sent:,} of {count:,}")
            except OperationalError as error:
                raise CommandError(
                    f"Requeued {sent:,} or a few more. The broker cannot be reached: {error}",
                    returncode=NOT_ALL_REQUEUED,
                ) from error
            self.stdout.write(f"Requeued {sent:,}.")
        if incomplete:
            self.stderr.write(f"{incomplete:,} cannot be requeued: their messages were not kept.")
        if refused:
            self.stderr.write(
                f"{refused:,} could not be sent: `deadletters show` says why, as requeue_error."
            )
        if refused or incomplete:
            raise SystemExit(NOT_ALL_REQUEUED)

    def discard(self, rows: QuerySet[DeadLetter], options: dict[str, Any]) -> None:
        """Delete them."""
        rows = self._oldest(rows, options["limit"])
        if options["dry_run"]:
            self._say_what(rows, f"Would discard {rows.count():,}")
        else:
            self.stdout.write(f"Discarded {rows.delete()[0]:,}.")

    def _oldest(self, rows: QuerySet[DeadLetter], limit: int | None) -> QuerySet[DeadLetter]:
        """Return no more than `limit` of the rows, and none that comes after this moment."""
        keys = rows.order_by("pk").values_list("pk", flat=True)
        last = (keys[limit - 1 : limit] if limit else keys[:0]).first() or keys.last()
        return rows.filter(pk__lte=last)

    def _say_what(self, rows: QuerySet[DeadLetter], what: str) -> None:
        self.stdout.write(f"{what}:")
        kinds = rows.order_by().values_list("task", "reason").annotate(count=Count("pk")).order_by("-count")
        for task, reason, count in kinds:
            self.stdout.write(f"{count:8,}  {printable(task)}  {reason}")
