"""`manage.py deadletters`: what the admin does, for a terminal and for scripts."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import pytest
from django.core.management import ManagementUtility
from django.utils import timezone

from reliability import letters
from reliability.models import DeadLetter, State
from tests import tasks
from tests.harness import StartWorker, eventually
from tests.letters import assert_parked, broker, broker_away, letter_of, rows_of  # noqa: F401  # two fixtures
from tests.test_letters import HOSTILE

pytestmark = pytest.mark.django_db(transaction=True)


class Output(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Output]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `manage.py deadletters` with these arguments, as the shell does."""

    def run(*arguments: str) -> Output:
        try:
            ManagementUtility(["manage.py", "deadletters", *arguments]).execute()
        except SystemExit as end:
            return Output(int(end.code or 0), *capsys.readouterr())
        return Output(0, *capsys.readouterr())

    return run


def test_it_lists_what_is_dead_newest_first(run: Run) -> None:
    rows_of(1, error="OSError: mail server")
    rows_of(1, state=State.REQUEUED)
    (newest,) = rows_of(1, failed_at=timezone.now() + timedelta(seconds=1))
    head, first, second = run("list").out.splitlines()
    assert head.split() == ["failed_at", "state", "reason", "failures", "queue", "task", "task_id", "error"]
    assert newest.task_id in first
    assert second.endswith("OSError: mail server")


def test_it_lists_no_more_than_a_screen_and_says_so(run: Run) -> None:
    rows_of(60)
    result = run("list")
    assert len(result.out.splitlines()) == 1 + 50
    assert "50 of 60" in result.err
    assert len(run("list", "--limit", "60").out.splitlines()) == 1 + 60


def test_json_is_one_object_for_each_line(run: Run) -> None:
    letters.store(letter_of("jobs.tasks.write_report", "ä", task_id="an-id"))
    (listed,) = map(json.loads, run("list", "--json").out.splitlines())
    assert (listed["task_id"], listed["reason"]) == ("an-id", "failed")
    (shown,) = map(json.loads, run("show", "--id", "an-id", "--json").out.splitlines())
    assert shown["headers"]["task"] == "jobs.tasks.write_report"
    assert json.loads(shown["args"]) == ["ä"]
    assert shown["failed_at"] == listed["failed_at"]


def test_it_shows_all_that_is_known(run: Run) -> None:
    letters.store(letter_of("jobs.tasks.write_report", 7, task_id="an-id"))
    shown = run("show", "--id", "an-id").out
    for text in ("jobs.tasks.write_report", "an-id", "[7]", "Traceback (most recent call last):\n  File"):
        assert text in shown


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_does_not_reach_the_terminal(run: Run, changes: dict[str, object]) -> None:
    letters.store(letter_of(**changes))  # type: ignore[arg-type]
    for arguments in (["list"], ["show", "--all"], ["list", "--json"], ["show", "--all", "--json"]):
        result = run(*arguments)
        assert result.code == 0
        assert not re.search(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]", result.out)
        result.out.encode()


def test_each_filter_chooses(run: Run) -> None:
    old = timezone.now() - timedelta(hours=3)
    rows_of(1, task_id="one", task="a.task", failed_at=old)
    rows_of(1, task_id="two", reason="time_limit", queue="celery")
    rows_of(1, task_id="three", state=State.REQUEUED)
    for arguments, expected in (
        (["--task", "a.task"], {"one"}),
        (["--reason", "time_limit"], {"two"}),
        (["--queue", "celery"], {"two"}),
        (["--state", "requeued"], {"three"}),
        (["--state", "any"], {"one", "two", "three"}),
        (["--since", "2h"], {"two"}),
        (["--until", "2h"], {"one"}),
        (["--since", f"{old:%Y-%m-%d}"], {"one", "two"}),
        (["--until", f"{old:%Y-%m-%dT%H:%M:%S}"], set()),
        (["--id", "one", "two", "none"], {"one", "two"}),
        (["--all"], {"one", "two"}),
        (["--queue", "celery", "--task", "a.task"], set()),
    ):
        result = run("list", "--json", *arguments)
        assert {json.loads(line)["task_id"] for line in result.out.splitlines()} == expected, arguments
        assert result.code == (0 if expected else 1)


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["burn"], ["show"], ["requeue"], ["discard"], ["discard", "--dry-run"]),
        *(["discard", "--all", "--task", "a"], ["list", "--limit", "0"], ["list", "--since", "soon"]),
        *(["list", "--reason", "none"], ["list", "--dry-run"], ["requeue", "--all", "--json"]),
    ],
    ids=" ".join,
)
def test_a_wrong_usage_does_nothing(run: Run, arguments: list[str]) -> None:
    rows_of(1)
    result = run(*arguments)
    assert result.code == 2
    assert result.err
    assert DeadLetter.objects.filter(state=State.DEAD).count() == 1


@pytest.mark.parametrize("command", ["list", "show", "requeue", "discard"])
def test_nothing_matched_is_no_success(run: Run, command: str) -> None:
    rows_of(1)
    result = run(command, "--id", "another")
    assert result.code == 1
    assert "No dead letter matches" in result.err


def test_a_requeued_task_runs_again_with_the_same_id(run: Run, start_worker: StartWorker) -> None:
    start_worker()
    (row,) = rows_of(1, queue="celery")
    assert run("requeue", "--id", row.task_id) == Output(0, "Requeued 1.\n", "")
    eventually(lambda: tasks.runs(row.task_id), "the task runs")
    row.refresh_from_db()
    assert row.state == State.REQUEUED
    assert row.requeued_by.startswith("deadletters on ")
    assert run("requeue", "--id", row.task_id).code == 1, "it is not dead any more"


@pytest.mark.usefixtures("broker")
def test_many_are_requeued_with_progress(run: Run) -> None:
    """And none that does not match."""
    rows_of(3, queue="celery")
    rows_of(3000)
    result = run("requeue", "--queue", "long")
    assert (result.code, result.out) == (0, "Requeued 3,000.\n")
    assert " of 3,000" in result.err
    assert_parked(3000)


@pytest.mark.usefixtures("broker")
def test_a_limit_takes_the_oldest_first(run: Run) -> None:
    """To try one before the other ten thousand."""
    rows = rows_of(3)
    assert run("requeue", "--all", "--limit", "1").out == "Requeued 1.\n"
    assert_parked(1)
    assert run("discard", "--all", "--limit", "1").out == "Discarded 1.\n"
    assert list(DeadLetter.objects.order_by("pk")) == [rows[0], rows[2]]


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("command", ["requeue", "discard"])
def test_a_dry_run_says_what_would_be_done(run: Run, command: str) -> None:
    rows_of(2)
    rows_of(1, reason="time_limit")
    result = run(command, "--all", "--dry-run")
    assert result.code == 0
    assert result.out.splitlines() == [
        f"Would {command} 3:",
        "       2  tests.tasks.misbehave  failed",
        "       1  tests.tasks.misbehave  time_limit",
    ]
    assert DeadLetter.objects.filter(state=State.DEAD, requeue_error="").count() == 3


@pytest.mark.usefixtures("broker")
def test_what_cannot_be_requeued_is_told(run: Run) -> None:
    rows_of(1, complete=False)
    rows_of(1, queue="")
    rows_of(1)
    result = run("requeue", "--all")
    assert (result.code, result.out) == (3, "Requeued 1.\n")
    assert "1 cannot be requeued" in result.err
    assert "1 could not be sent" in result.err
    assert_parked(1)


@pytest.mark.usefixtures("broker_away")
def test_a_broker_that_is_away_is_told(run: Run) -> None:
    rows_of(2)
    result = run("requeue", "--all")
    assert result.code == 3
    assert "The broker cannot be reached" in result.err
    assert DeadLetter.objects.filter(state=State.DEAD).count() == 2


def test_what_is_discarded_is_gone(run: Run) -> None:
    rows_of(2, task="a.task")
    (kept,) = rows_of(1)
    assert run("discard", "--task", "a.task") == Output(0, "Discarded 2.\n", "")
    assert DeadLetter.objects.get() == kept
