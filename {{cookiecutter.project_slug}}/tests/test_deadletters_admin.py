"""Dead letters in the admin: found, understood, sent again or discarded, by those who may."""

import re
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from reliability import letters, requeueing
from reliability.models import DeadLetter, State
from tests import tasks
from tests.harness import StartWorker, eventually, waiting_messages
from tests.letters import PARKED, assert_parked, broker_away, clear, letter_of, rows_of  # noqa: F401  # one fixture
from tests.test_letters import HOSTILE

LIST = "/admin/reliability/deadletter/"
MANY = 10_000


class Browser(Client):
    """Logged in, over TLS."""

    def __init__(self, *permissions: str) -> None:
        """Log a user of the admin in who has these permissions; a superuser without any."""
        super().__init__(headers={"X-Forwarded-Proto": "https"})
        users = get_user_model()._default_manager
        user = users.create_user("alice", is_staff=True, is_superuser=not permissions)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        self.force_login(user)

    def generic(self, *args: Any, **kwargs: Any) -> Any:
        """Make each request over TLS."""
        return super().generic(*args, **{**kwargs, "secure": True})

    def page(self, url: str) -> str:
        """Return the page at this address, as text."""
        answer = self.get(url)
        assert answer.status_code == 200, answer
        return answer.content.decode()

    def act(self, action: str, *rows: DeadLetter, url: str = LIST, **fields: str) -> Any:
        """Do what a user does who selects rows, an action, and presses Go."""
        keys = [str(row.pk) for row in rows]
        return self.post(url, {"action": action, "index": "0", "_selected_action": keys, **fields})


def listed(page: str) -> int:
    """Return how many dead letters the page lists."""
    return len(re.findall(r'name="_selected_action"', page))


@pytest.mark.django_db
def test_the_list_shows_what_is_not_dealt_with_and_filters_the_rest() -> None:
    rows_of(3, error="OSError: mail server")
    rows_of(2, task="jobs.tasks.write_report", reason="time_limit", args='["Löwe"]', queue="celery")
    rows_of(1, state=State.REQUEUED)
    browser = Browser()
    page = browser.page(LIST)
    assert listed(page) == 5
    assert "OSError: mail server" in page
    assert "time limit exceeded" in page
    for query, expected in {
        "state=requeued": 1,
        "state=all": 6,
        "task=jobs.tasks.write_report": 2,
        "reason__exact=time_limit": 2,
        "queue=celery": 2,
        urlencode({"failed_at__gte": timezone.now() - timedelta(hours=1)}): 5,
        urlencode({"failed_at__lt": timezone.now() - timedelta(hours=1)}): 0,
        "q=mail": 3,
        "q=write_rep": 2,
        "q=Löwe": 2,
        f"q={DeadLetter.objects.latest('pk').task_id}&state=all": 1,
        "q=nothing+like+it": 0,
    }.items():
        assert listed(browser.page(f"{LIST}?{query}")) == expected, query


@pytest.mark.django_db
def test_one_letter_shows_all_that_is_known_of_it() -> None:
    letters.store(letter_of("jobs.tasks.write_report", 7, {"a": "ä"}, task_id="an-id"))
    page = Browser().page(f"{LIST}{DeadLetter.objects.get().pk}/change/")
    for text in ("jobs.tasks.write_report", "an-id", "Traceback (most recent call last)", "celery@tests"):
        assert text in page
    assert "[\n  7,\n  {\n    &quot;a&quot;: &quot;ä&quot;\n  }\n]" in page
    assert not re.search(r"<script>| style=| onclick=", page), "the Content-Security-Policy forbids it"


@pytest.mark.django_db
@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_shown(changes: dict[str, Any]) -> None:
    letters.store(letter_of(**changes))
    browser = Browser()
    assert listed(browser.page(f"{LIST}?q=a")) <= 1
    for url in (LIST, f"{LIST}{DeadLetter.objects.get().pk}/change/"):
        page = browser.page(url)
        assert "<script>alert" not in page
        assert len(page) < 200_000


@pytest.mark.django_db
def test_redacted_arguments_are_called_so() -> None:
    (row,) = rows_of(1, args="redacted", kwargs="redacted", body="", complete=False)
    browser = Browser()
    assert "redacted" in browser.page(LIST)
    page = browser.page(f"{LIST}{row.pk}/change/")
    assert "No: its arguments are redacted." in page
    assert 'value="requeue"' not in page


@pytest.mark.django_db
def test_who_may_only_look_changes_nothing() -> None:
    rows = rows_of(2)
    browser = Browser("view_deadletter")
    assert 'name="action"' not in browser.page(LIST)
    assert 'name="action"' not in browser.page(f"{LIST}{rows[0].pk}/change/")
    for action in ("requeue", "delete_selected"):
        browser.act(action, *rows, until=timezone.now().isoformat())
        assert browser.act(action, *rows, select_across="1").status_code in {200, 302}
    batch = requeueing.ask(DeadLetter.objects.all(), by="bob")
    progress = f"{LIST}requeue/{batch}/"
    assert "Stop" not in browser.page(progress)
    assert browser.post(progress, {"stop": ""}).status_code == 403
    key = rows[0].pk
    for url in (f"{LIST}add/", f"{LIST}{key}/delete/"):
        assert browser.get(url).status_code == 403
    assert browser.post(f"{LIST}{key}/change/", {"task": "another"}).status_code == 403
    assert DeadLetter.objects.filter(state=State.REQUEUEING, requeued_by="bob").count() == 2


@pytest.mark.django_db
def test_who_may_not_look_sees_nothing() -> None:
    (row,) = rows_of(1)
    batch = requeueing.ask(DeadLetter.objects.all(), by="bob")
    browser = Browser("view_report")
    for url in (LIST, f"{LIST}{row.pk}/change/", f"{LIST}requeue/{batch}/"):
        assert browser.get(url).status_code == 403


def test_a_requeued_task_runs_again_with_the_same_id(start_worker: StartWorker) -> None:
    start_worker()
    (row,) = rows_of(1, queue="celery")
    assert tasks.runs(row.task_id) == 0
    browser = Browser("view_deadletter", "requeue_deadletter")
    assert 'value="requeue"' in browser.page(f"{LIST}{row.pk}/change/")
    answer = browser.act("requeue", row)
    eventually(lambda: tasks.runs(row.task_id), "the task runs")
    eventually(lambda: "1 of 1 done." in browser.page(answer["Location"]), "the page says so")
    assert tasks.runs(row.task_id) == 1
    row.refresh_from_db()
    assert (row.state, row.requeued_by) == (State.REQUEUED, "alice")


@pytest.mark.promise("dead_letters")
def test_a_requeued_task_that_fails_again_is_counted_as_such(start_worker: StartWorker) -> None:
    start_worker()
    tasks.misbehave.delay("with an error")
    eventually(DeadLetter.objects.exists, "the dead letter")
    row = DeadLetter.objects.get()
    browser = Browser()
    progress = browser.act("requeue", row)["Location"]
    eventually(lambda: "Failed again: 1" in browser.page(progress), "the second failure")
    row.refresh_from_db()
    assert (row.state, row.failures) == (State.DEAD, 2)
    assert tasks.runs(row.task_id) == 2


def test_ten_thousand_are_requeued_without_a_timeout(start_worker: StartWorker) -> None:
    """The request marks them, a worker sends them, the page follows."""
    start_worker("-X", "long")
    clear()
    row, *_ = rows_of(MANY)
    rows_of(3, complete=False)
    browser = Browser()
    began = time.monotonic()
    answer = browser.act("requeue", row, select_across="1")
    assert time.monotonic() - began < 5
    assert answer.status_code == 302

    def is_done() -> bool:
        page = browser.get(answer["Location"])
        assert b'<progress max="10000"' in page.content
        assert "Refresh" in page or b"10,000 of 10,000 done." in page.content
        return "Refresh" not in page

    eventually(is_done, "all are sent")
    page = browser.page(answer["Location"])
    assert "10,000 of 10,000 done." in page
    assert "Cannot be requeued: 3" in page
    assert_parked(MANY, twice=100)
    assert DeadLetter.objects.filter(state=State.REQUEUED).count() == MANY
    clear()


def test_a_requeue_survives_a_killed_worker(start_worker: StartWorker) -> None:
    """The next worker goes on. What the dead one had sent, but not yet marked, is sent twice."""
    worker = start_worker("-X", "long")
    clear()
    rows_of(3000)
    Browser().act("requeue", DeadLetter.objects.latest("pk"), select_across="1")
    sent = DeadLetter.objects.filter(state=State.REQUEUED)
    eventually(sent.exists, "the first are sent")
    worker.kill()
    assert sent.count() < 3000, "it was done before it was killed"
    start_worker("-X", "long")
    eventually(lambda: sent.count() == 3000, "all are sent")
    assert 3000 <= waiting_messages(PARKED) <= 3000 + requeueing.CHUNK
    clear()


@pytest.mark.django_db(transaction=True)
def test_ten_thousand_are_discarded_after_a_look(servers: None) -> None:
    """Django's own deletion refuses so many. What fails between the look and the click stays."""
    row, *_ = rows_of(MANY)
    browser = Browser("view_deadletter", "delete_deadletter")
    answer = browser.act("delete_selected", row, select_across="1")
    page = answer.content.decode()
    assert "These 10,000 dead letters will be gone for ever" in page
    assert "10,000 &times; <strong>tests.tasks.misbehave</strong>: failed for good" in page
    assert DeadLetter.objects.count() == MANY
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    (late,) = rows_of(1)
    assert browser.post(LIST, fields).status_code == 302
    assert DeadLetter.objects.get() == late
    assert LogEntry.objects.count() == MANY


@pytest.mark.django_db
def test_a_requeue_can_be_stopped() -> None:
    rows_of(3)
    batch = requeueing.ask(DeadLetter.objects.all(), by="bob")
    DeadLetter.objects.filter(pk=DeadLetter.objects.earliest("pk").pk).update(state=State.REQUEUED)
    browser = Browser()
    url = f"{LIST}requeue/{batch}/"
    assert "1 of 3" in browser.page(url)
    browser.post(url, {"stop": ""})
    page = browser.page(url)
    assert "Stopped. Left dead: 2." in page
    assert "1 of 1 done." in page
    assert DeadLetter.objects.filter(state=State.DEAD).count() == 2


@pytest.mark.django_db
def test_a_requeue_without_workers_says_so() -> None:
    rows_of(2)
    batch = requeueing.ask(DeadLetter.objects.all(), by="bob")
    browser = Browser()
    assert "Nothing has been sent" not in browser.page(f"{LIST}requeue/{batch}/")
    DeadLetter.objects.update(requeued_at=timezone.now() - timedelta(minutes=1))
    page = browser.page(f"{LIST}requeue/{batch}/")
    assert "Nothing has been sent" in page
    assert 'name="continue"' in page


@pytest.mark.django_db
def test_what_was_requeued_before_is_left_alone() -> None:
    (row,) = rows_of(1, state=State.REQUEUED)
    browser = Browser()
    answer = browser.act("requeue", row, url=f"{LIST}?state=all")
    assert "Left alone, because requeued before: 1." in browser.page(answer["Location"])
    row.refresh_from_db()
    assert row.state == State.REQUEUED


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("broker_away")
def test_a_broker_that_is_away_is_named() -> None:
    (row,) = rows_of(1)
    browser = Browser()
    page = browser.page(browser.act("requeue", row)["Location"])
    assert "The broker cannot be reached" in page
    assert "0 of 1" in page


def test_continue_sends_what_still_waits(start_worker: StartWorker) -> None:
    """As after the message to the worker was lost with its broker."""
    (row,) = rows_of(1, queue="celery")
    batch = requeueing.ask(DeadLetter.objects.all(), by="bob")
    start_worker()
    browser = Browser()
    answer = browser.post(f"{LIST}requeue/{batch}/", {"continue": ""})
    assert answer.status_code == 302
    eventually(lambda: tasks.runs(row.task_id), "the task runs")
