"""Flower, with the command and the environment that compose.production.yaml gives it."""

import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from django.conf import settings

from dev import BASE_DIR
from dev.processes import free_port
from tests import tasks
from tests.harness import StartWorker, Worker, eventually

(SERVICE,) = re.findall(
    r"^  flower:\n(.+?)\n\n", (BASE_DIR / "compose.production.yaml").read_text(), re.M | re.DOTALL
)
NODE = "celery@worker-0"
LOGIN = "somebody:of-no-use-elsewhere"
SECRET = "4929-secret-1848"
Ask = Callable[..., tuple[int, str]]


def environment(port: int, given: Mapping[str, str]) -> dict[str, str]:
    """Return the service's environment, where production.env holds `given`; the broker is the tests'."""
    (block,) = re.findall(r"^    environment:\n((?:      .+\n)+)", SERVICE, re.MULTILINE)
    block = re.sub(r"\$\{(\w+):-\}", lambda found: given.get(found[1], ""), block)
    variables = dict(re.findall(r'^ +(\w+): "?(.*?)"?(?:  #.*)?$', block, re.MULTILINE))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    broker = os.environ["BROKER_URL"]
    return variables | {"PATH": path, "CELERY_BROKER_URL": broker, "FLOWER_PORT": str(port)}


def start(folder: Path, port: int, given: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start it as Compose does, in which `$$` is a dollar sign."""
    (script,) = re.findall(
        r"^    command:\n      - sh\n      - -c\n      - \|\n((?:        .+\n)+)", SERVICE, re.M
    )
    command = ["sh", "-c", script.replace("$$", "$")]
    with (folder / "flower.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(port, given), stdout=log, stderr=log)


@contextmanager
def running(folder: Path) -> Iterator[Ask]:
    """Run it, and give a function that asks it for a page: with its login, unless told otherwise."""
    port = free_port()
    process = start(folder, port, {"FLOWER_BASIC_AUTH": LOGIN})

    def ask(page: str, login: str = LOGIN, data: bytes | None = None) -> tuple[int, str]:
        header = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login else {}
        try:
            with urlopen(Request(f"http://127.0.0.1:{port}{page}", data, header), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def answers() -> bool:
        assert process.poll() is None, (folder / "flower.log").read_text()
        try:
            return ask("/healthcheck") == (200, "OK")
        except OSError:
            return False

    try:
        eventually(answers, "Flower to answer")
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def run_a_task(ask: Ask, how: str, worker: Worker, **details: str) -> str:
    """Send a task once the worker sends events, and return its id when Flower knows its end."""
    eventually(lambda: "enabled by remote" in worker.log.read_text(), "the worker to send events")
    sent = tasks.misbehave.delay(how, **details)
    eventually(
        lambda: re.search('"state": "(SUCCESS|FAILURE)"', ask(f"/api/task/info/{sent.id}")[1]), "its end"
    )
    return str(sent.id)


@pytest.mark.parametrize(
    "login", ["", ":", "somebody", "somebody:", "somebody:short", ":of-no-use-elsewhere", f"{LOGIN},b:1"]
)
def test_flower_does_not_start_without_a_password(tmp_path: Path, login: str) -> None:
    """Started all the same, it would show its pages to everybody."""
    process = start(tmp_path, free_port(), {"FLOWER_BASIC_AUTH": login} if login else {})
    try:
        assert process.wait(30) == 1
    finally:
        process.kill()
    assert "FLOWER_BASIC_AUTH" in (tmp_path / "flower.log").read_text()


def test_flower_shows_tasks_to_those_who_may_see_them(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker()
    with running(tmp_path) as ask:
        task = run_a_task(ask, "not at all", worker)
        for page in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", f"/task/{task}"):
            assert ask(page, login="")[0] == 401, page
            assert ask(page, login=f"{LOGIN}?")[0] == 401, page
            assert ask(page)[0] == 200, page
        eventually(lambda: NODE in ask("/api/workers?refresh=1")[1], "the worker")
        assert "tests.tasks.misbehave" in ask(f"/task/{task}")[1]


def test_flower_changes_nothing(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker()
    with running(tmp_path) as ask:
        task = run_a_task(ask, "not at all", worker)
        eventually(lambda: NODE in ask("/api/workers?refresh=1")[1], "the worker")
        for order in (
            f"worker/shutdown/{NODE}",
            f"worker/pool/restart/{NODE}",
            f"worker/queue/cancel-consumer/{NODE}?queue=celery",
            f"task/revoke/{task}?terminate=true",
            "task/async-apply/tests.tasks.misbehave",
        ):
            assert ask(f"/api/{order}", data=b"")[0] == 403, order
        assert worker.process.poll() is None
        run_a_task(ask, "not at all", worker)


@pytest.mark.parametrize("how", ["not at all", "by saying what it knows"])
def test_redacted_arguments_are_not_in_flower(start_worker: StartWorker, tmp_path: Path, how: str) -> None:
    """Neither in what it heard of a task that has ended, nor in what it asks the worker."""
    worker = start_worker("--concurrency", "1", REDACT="tests.tasks.misbehave")
    settings.RELIABILITY["redact"] = ["tests.tasks.misbehave"]
    try:
        with running(tmp_path) as ask:
            task = run_a_task(ask, how, worker, secret=SECRET)
            tasks.misbehave.delay("until the soft limit")
            tasks.misbehave.delay("not at all", secret=SECRET)
            asked = eventually(
                lambda: (shown := ask(f"/worker/{NODE}")[1]).count("tests.tasks.misbehave") > 2 and shown,
                "the tasks that the worker holds",
            )
            shown = [ask(page)[1] for page in (f"/task/{task}", f"/api/task/info/{task}", "/api/tasks")]
    finally:
        settings.RELIABILITY["redact"] = []
    assert "redacted" in shown[0]
    for page in (asked, *shown):
        assert SECRET not in page
