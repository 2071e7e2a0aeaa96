"""Nobody waits for the result of a task that waits for the transaction."""

import json
import os
import subprocess
import sys

import pytest

from dev import BASE_DIR
from tests.harness import PATIENCE, StartWorker, database_url

pytestmark = pytest.mark.promise("send_after_commit")


def test_a_result_is_not_waited_for_in_the_transaction_that_sends(start_worker: StartWorker) -> None:
    """After the commit it is; and a task sent at once can be waited for at once."""
    with_results = {"CELERY_RESULT_BACKEND": os.environ["CACHE_URL"]}
    start_worker("--include", "tests.senders", **with_results)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.waiting"],
        cwd=BASE_DIR,
        env={**os.environ, "DATABASE_URL": database_url(), **with_results},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    *refused, at_once = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]
    assert len(refused) == 12
    for way, error, value in refused:
        assert error.startswith("tests.senders.add["), way
        assert "Wait after the atomic() block" in error, way
        assert value in (3, [1, 2]), way
    assert at_once == ["at once", "", 3]
