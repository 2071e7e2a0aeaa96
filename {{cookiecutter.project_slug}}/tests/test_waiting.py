"""Nobody waits for the result of a task that waits for the transaction."""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group
from django.db import transaction

from config.celery import app
from tests import senders
from tests.harness import PATIENCE, StartWorker
from tests.transactions import rolled_back

pytestmark = [pytest.mark.promise("send_after_commit"), pytest.mark.usefixtures("broker")]


@pytest.fixture
def result_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep results on the cache server, in this process and in its workers."""
    monkeypatch.setenv("CELERY_RESULT_BACKEND", os.environ["CACHE_URL"])
    monkeypatch.setattr(app, "_local", threading.local())
    monkeypatch.setattr(app, "_backend_cache", None)


@pytest.mark.usefixtures("result_backend")
def test_a_result_is_not_waited_for_in_the_transaction_that_sends(start_worker: StartWorker) -> None:
    add: Any = senders.add
    start_worker("--include", "tests.senders")
    kinds: dict[str, Callable[[], Any]] = {
        "task": lambda: add.delay(1, 2),
        "send_task": lambda: app.send_task("tests.senders.add", (1, 2)),
        "chain": lambda: chain(add.s(1), add.s(2))(),
        "group": lambda: group(add.s(1), add.s(2))(),
        "group in a chain": lambda: chain(add.s(1), group(add.s(0), add.s(1)))(),
        "chord": lambda: chord([add.s(1), add.s(2)], senders.total.s())(),
    }
    for kind, send in kinds.items():
        with transaction.atomic():
            result = send()
            with pytest.raises(RuntimeError, match="after the atomic"):
                result.get(timeout=PATIENCE)
        assert result.get(timeout=PATIENCE) in (3, [1, 2]), kind
    with transaction.atomic():
        at_once = chord([add.s(1), add.s(2)], senders.total.s()).apply_async(send_at_once=True)
        assert at_once.get(timeout=PATIENCE) == 3


@pytest.mark.usefixtures("result_backend")
def test_no_way_to_wait_is_left_open() -> None:
    with rolled_back():
        result = senders.add.delay(1)
        many = app.ResultSet([result])
        for wait in (result.get, result.wait, many.get, many.join, many.join_native, many.iter_native):
            with pytest.raises(RuntimeError, match="after the atomic"):
                wait(timeout=0.1)
