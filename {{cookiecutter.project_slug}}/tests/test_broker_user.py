"""The broker's user of docs/security.md: it can do what is done here, and does not administer the server."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from dev import BASE_DIR
from dev.processes import free_port
from dev.valkey import Valkey
from reliability.application import Celery
from tests import tasks
from tests.brokers import application
from tests.harness import PATIENCE, StartWorker, Worker, eventually, figure

USERS = re.findall(r"^user .+$", (BASE_DIR / "docs" / "security.md").read_text(), re.MULTILINE)


class Guarded(Valkey):
    """Valkey with these users."""

    @property
    def urls(self) -> dict[str, str]:
        return {"BROKER_URL": f"redis://app:{self.password}@127.0.0.1:{self.port}/0"}

    def prepare(self) -> None:
        super().prepare()
        lines = self.configuration.read_text().splitlines()
        users = [line.replace("PASSWORD", self.password) for line in USERS]
        kept = [line for line in lines if not line.startswith("requirepass")]
        auditor = f"user auditor on >{self.password} +acl|log"  # of the tests
        self.configuration.write_text("\n".join([*kept, *users, auditor, ""]))

    def client(self, user: str = "app") -> Any:
        """Return a client that is this user."""
        return redis.Redis(port=self.port, username=user, password=self.password, socket_timeout=2)

    def refused(self) -> list[str]:
        """Return the commands that the project's user was refused since this was asked last."""
        auditor = self.client("auditor")
        found = [entry["object"] for entry in auditor.acl_log() if entry["username"] == "app"]
        auditor.acl_log_reset()
        return found

    def answers(self) -> bool:
        with suppress(redis.ConnectionError):
            return bool(self.client().ping())
        return False


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    server = Guarded(tmp_path_factory.mktemp("guarded"), free_port(), "secret", durable=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def app(guarded: Guarded) -> Celery:
    return application(guarded.urls["BROKER_URL"])


def test_nobody_else_is_let_in(guarded: Guarded) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=guarded.port).ping()


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "SHUTDOWN", "CONFIG SET save 1", "ACL LIST", "KEYS *", "MONITOR"]
)
def test_what_nobody_here_needs_is_refused(guarded: Guarded, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        guarded.client().execute_command(*command.split())
    assert guarded.refused()


def test_tasks_run(guarded: Guarded, app: Celery, start_worker: StartWorker) -> None:
    worker = start_worker(**guarded.urls)
    worker.wait_for("ready.")
    sent = [app.send_task("tests.tasks.take", (0,), countdown=countdown) for countdown in (0, 1)]
    eventually(lambda: all(tasks.runs(one.id) for one in sent), "both to run")
    eventually(lambda: worker.status("/readyz") == 200, "the worker to be ready")
    eventually(app.control.inspect(timeout=5, limit=1).ping, "the worker to answer")
    assert guarded.refused() == []


def test_the_exporter_sees_the_broker(guarded: Guarded, start_exporter: Callable[..., Worker]) -> None:
    exporter = start_exporter(**guarded.urls)
    assert figure(exporter, "celery_broker_memory_bytes") > 0
    assert guarded.refused() == []


@pytest.mark.usefixtures("servers")
def test_the_deploy_check_is_content(guarded: Guarded) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--tag", "broker", "--fail-level", "WARNING"],
        cwd=BASE_DIR,
        env={**os.environ, **guarded.urls},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert guarded.refused() == []
