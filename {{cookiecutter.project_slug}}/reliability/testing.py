"""pytest fixtures for code that sends tasks: `pytest_plugins = ["reliability.testing"]` in conftest.py.

Neither a broker nor a worker takes part, so such tests are quick, and prove nothing about either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from celery import signature
from celery.result import denied_join_result
from django.db import connections

from reliability import sending
from reliability.commits import publications
from reliability.publication import Publication

MOST_TASKS = 1000  # that one call of run_sent_tasks() runs
_OF_CELERY = {"task_id", "task_type", "result_cls", "producer", "publisher", "connection", "add_to_parent"}


@dataclass(frozen=True)
class SentTask:
    """A task as a worker would get it: the arguments have been JSON. Options are those of the call."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    id: str


class SentTasks(Sequence[SentTask]):
    """What was sent, then what the open transactions would send if they committed now."""

    def __init__(self) -> None:
        self.published: list[Publication] = []

    def publications(self) -> list[Publication]:
        """Return the same, with all that is needed to run them."""
        waiting = [
            publication
            for connection in connections.all(initialized_only=True)
            if not connection.needs_rollback
            for publication in publications(connection)
            if not publication.sent
        ]
        return [*self.published, *waiting]

    def __len__(self) -> int:
        return len(self.publications())

    def __getitem__(self, index: Any) -> Any:
        return [_as_sent(publication) for publication in self.publications()][index]

    def __repr__(self) -> str:
        return repr(list(self))


def _as_sent(publication: Publication) -> SentTask:
    args, kwargs = sending.as_received(publication)
    asked = publication.asked or publication.options
    options = {name: value for name, value in asked.items() if value is not None and name not in _OF_CELERY}
    return SentTask(publication.name, args, kwargs, options, publication.id)


@pytest.fixture
def sent_tasks(monkeypatch: pytest.MonkeyPatch) -> SentTasks:
    """The tasks that the test sends. None of them goes to a broker."""
    sent = SentTasks()

    def publish(publication: Publication) -> Any:
        publication.args, publication.kwargs = sending.as_received(publication)
        publication.sent = True
        sent.published.append(publication)
        return sending.result_of(publication)

    monkeypatch.setattr(Publication, "publish", publish)
    return sent


@pytest.fixture
def run_sent_tasks(sent_tasks: SentTasks) -> Callable[[], int]:
    """Call it to run what was sent and has not run, in this process; it returns how many tasks ran.

    They run in their order, and so do those that they send, their links and chains. A retry runs at once.
    An error ends it, and is raised. A chord needs its result backend: test that beside a real worker.
    """
    ran: list[Publication] = []

    def run() -> int:
        before = len(ran)
        while publication := next((each for each in sent_tasks.publications() if each not in ran), None):
            if len(ran) - before == MOST_TASKS:
                raise RuntimeError(f"More than {MOST_TASKS} tasks: do they send each other for ever?")
            ran.append(publication)
            _run(publication)
        return len(ran) - before

    return run


def _run(publication: Publication) -> None:
    task, sent = publication.task, _as_sent(publication)
    if task is None:
        raise LookupError(f"{publication}: this process knows no such task")
    if sent.options.get("chord"):
        raise NotImplementedError(f"{publication} is part of a chord, which needs its result backend")
    with denied_join_result():
        result = task.apply(sent.args, sent.kwargs, task_id=sent.id, **sent.options)
    value = result.get()
    if chain := list(sent.options.get("chain") or ()):
        following = signature(chain.pop(), app=publication.app)
        following.apply_async((value,), chain=chain, parent_id=sent.id)
