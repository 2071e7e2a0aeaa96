"""docs/carry-reliability.md, done word by word to a bare Django and Celery project that knows nothing of this one."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager

import pytest
from conftest import ROOT, TEMPLATE
from processes import eventually

PAGE = (ROOT / "docs" / "carry-reliability.md").read_text()
STEPS = [
    "Copy the folder",
    "Switch it on",
    "The settings of Celery",
    "A queue for long tasks",
    "Start it",
    "Your tests",
]
ASK = "import django, json; django.setup(); from carry_scenarios import *; print(json.dumps({}))"
# Runs beside the servers of a generated project: prints where they are, and ends with its input.
TELL = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"
BROKERS = {"redis": "Redis", "rabbitmq": "RabbitMQ"}  # as the page names them
ANSWERS = {"redis": {}, "rabbitmq": {"broker": "rabbitmq"}}


class Shop:
    """A copy of the bare project."""

    def __init__(self, folder, broker, environment):
        self.folder, self.broker = folder, broker
        self.environment = {**environment, "TEMPLATE": str(ROOT), "DJANGO_SETTINGS_MODULE": "shop.settings"}
        self.log = folder / "worker.log"
        shutil.copytree(ROOT / "tests" / "bare_project", folder)

    def run(self, command):
        """Run a command of the shell; return what it printed."""
        done = subprocess.run(
            ["bash", "-ec", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, call):
        """Return the value of a call of one of the scenarios."""
        return json.loads(self.run(f"PYTHONPATH=.:{ROOT / 'tests'} python -c '{ASK.format(call)}'"))

    def refusal(self):
        """Return what `manage.py check` says when it fails."""
        with pytest.raises(AssertionError) as refused:
            self.run("python manage.py check")
        return str(refused.value)

    def follow(self, *headings):
        """Do what the page says below these headings, to the letter; workers are left to `working`."""
        for heading in headings:
            for language, text in blocks(heading):
                if language == "python":
                    self.edit(*text.split("\n", 1))
                elif "celery -A" not in text:
                    self.run(text)

    def edit(self, where, lines):
        """Change a file as the first line of a block says."""
        path, what = re.fullmatch(r"# (\S+), (.+)", where).groups()
        what, _, broker = what.partition(", on ")
        if broker not in ("", BROKERS[self.broker]):
            return
        file = self.folder / path
        text = file.read_text() if file.exists() else ""
        if what == "at the end":
            text += "\n" + lines
        elif what == "without":
            for line in lines.splitlines(keepends=True):
                assert text.count(line) == 1, line
                text = text.replace(line, "")
        else:
            old = what.removeprefix("in place of: ") + "\n"
            assert text.count(old) == 1, old
            text = text.replace(old, lines)
        file.write_text(text)

    @contextmanager
    def working(self, command="celery -A shop worker"):
        """Have a worker run, with one process."""
        with self.log.open("wb") as log:
            worker = subprocess.Popen(
                ["bash", "-c", f"exec env {command.strip()} --concurrency 1 --loglevel INFO"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: " ready." in self.log.read_text() or worker.poll() is not None, "a worker")
            assert worker.poll() is None, self.log.read_text()
            yield self
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def blocks(heading):
    """Return language and text of each block below the heading that begins with these words."""
    (section,) = re.findall(rf"^## (?:\d\. )?{heading}.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def worker_command():
    """Return the line that starts a worker."""
    (command,) = [text for _, text in blocks("Start it") if "celery -A" in text]
    return command


@contextmanager
def servers(project):
    """Run PostgreSQL and the broker of a generated project; give an environment with their URLs and its programs."""
    environment = {**os.environ, "PATH": f"{project / '.venv/bin'}:{os.environ['PATH']}"}
    command = ["python", "-m", "dev.throwaway", "python", "-c", TELL]
    with subprocess.Popen(
        command, cwd=project, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            told = json.loads(next(line for line in process.stdout if line.startswith("{")))
            yield environment | {name: told[name] for name in ("DATABASE_URL", "BROKER_URL")}
        finally:
            process.stdin.close()


@contextmanager
def running_servers(install, broker):
    """The same, by the name of the broker."""
    if broker == "rabbitmq" and not (
        shutil.which("rabbitmq-server") or shutil.which("/usr/lib/rabbitmq/bin/rabbitmq-server")
    ):
        pytest.skip("rabbitmq-server is not installed")
    with servers(install(**ANSWERS[broker])) as environment:
        yield environment


@pytest.fixture(scope="module", params=["before the steps", "switched off"])
def plain(request, install, tmp_path_factory):
    """The bare project without any promise, and a worker."""
    with running_servers(install, "redis") as environment:
        shop = Shop(tmp_path_factory.mktemp("plain") / "shop", "redis", environment)
        if request.param == "switched off":
            shop.follow("Copy the folder", "Switch it on", "One promise at a time")
        shop.run("python manage.py migrate && python manage.py check")
        with shop.working():
            yield shop


@pytest.fixture(scope="module", params=BROKERS)
def carried(request, install, tmp_path_factory):
    """The bare project after all the steps of the page, and a worker. Before them it had sent `sent_before`."""
    with running_servers(install, request.param) as environment:
        shop = Shop(tmp_path_factory.mktemp("carried") / "shop", request.param, environment)
        shop.run("python manage.py migrate")
        shop.sent_before = shop.ask("send()")
        shop.follow(*STEPS)
        with shop.working(worker_command()):
            yield shop


@pytest.mark.slow
def test_check_says_what_is_missing_until_the_settings_are_there(install, tmp_path):
    environment = {**os.environ, "PATH": f"{install() / '.venv/bin'}:{os.environ['PATH']}"}
    for broker, scheme in {"redis": "redis", "rabbitmq": "amqp"}.items():
        urls = {"DATABASE_URL": "postgres://none/none", "BROKER_URL": f"{scheme}://none"}
        shop = Shop(tmp_path / broker, broker, environment | urls)
        shop.run("python manage.py check")
        shop.follow("Copy the folder", "Switch it on")
        assert "reliability.E010" in shop.refusal()
        shop.follow("The settings of Celery")
        shop.run("python manage.py check --fail-level WARNING")
        shop.follow("A queue for long tasks")
        shop.run("python manage.py check --fail-level WARNING")


def test_the_page_switches_every_promise_off():
    ((_, text),) = blocks("One promise at a time")
    named = re.findall(r'"(\w+)": False', text)
    switches = re.search(r"SWITCHES = {\n(.*?)^}", (TEMPLATE / "reliability/conf.py").read_text(), re.MULTILINE | re.S)
    assert sorted(named) == sorted(re.findall(r'^    "(\w+)"', switches[1], re.MULTILINE))


def test_the_page_names_every_error_of_the_checks():
    errors = {
        found
        for path in (TEMPLATE / "reliability").glob("*.py")
        for found in re.findall(r'"reliability\.(E\d{3})"', path.read_text())
    }
    assert len(errors) > 8
    table = PAGE[PAGE.index("| id |") :]
    assert set(re.findall(r"\bE\d{3}\b", table)) == errors


@pytest.mark.slow
def test_without_it_a_task_sent_in_a_rolled_back_transaction_runs(plain):
    number = plain.ask("send_and_roll_back()")
    assert plain.ask(f"look({number})")["begun"] == 1


@pytest.mark.slow
def test_a_task_sent_in_a_rolled_back_transaction_never_runs(carried):
    number = carried.ask("send_and_roll_back()")
    assert carried.ask(f"look({number})")["begun"] == 0


@pytest.mark.slow
def test_without_it_a_failing_task_leaves_no_trace(plain):
    plain.ask("fail()")
    assert "has no address" in plain.log.read_text()
    assert plain.ask("dead_letters()") == []
    assert plain.ask("messages_in_redis()") == 0


@pytest.mark.slow
def test_a_failing_task_becomes_a_dead_letter(carried):
    sent = carried.ask("fail()")
    letters = eventually(lambda: [each for each in carried.ask("dead_letters()") if each[0] == sent], "a dead letter")
    ((_, reason, error),) = letters
    assert reason == "failed"
    assert "has no address" in error


@pytest.mark.slow
def test_without_it_a_task_whose_process_is_killed_is_lost(plain):
    number = plain.ask("kill_while_packing()")
    assert plain.ask(f"look({number})") == {"begun": 1, "packed": False}
    assert plain.ask("messages_in_redis()") == 0


@pytest.mark.slow
def test_a_task_whose_process_is_killed_runs_again(carried):
    number = carried.ask("kill_while_packing()")
    eventually(lambda: carried.ask(f"look({number})")["packed"], "the second run")
    assert carried.ask(f"look({number})")["begun"] == 2


@pytest.mark.slow
def test_removed_again_nothing_is_left_of_it(install, tmp_path):
    with running_servers(install, "redis") as environment:
        shop = Shop(tmp_path / "shop", "redis", environment)
        shop.follow(*STEPS, "Remove it again")
        assert shop.run("grep -rlI reliability . || true") == ""
        shop.run("python manage.py check")
        with shop.working():
            number = shop.ask("send_and_roll_back()")
            assert shop.ask(f"look({number})")["begun"] == 1


@pytest.mark.slow
def test_what_was_sent_before_the_steps_runs_after_them(carried):
    eventually(lambda: carried.ask(f"look({carried.sent_before})")["packed"], "its run")


@pytest.mark.slow
def test_what_nobody_knows_in_the_old_queue_is_tried_again_and_again(carried):
    """A queue that was declared for Celery's defaults: RabbitMQ delays nothing there."""
    sent = carried.ask("send_what_nobody_knows()")
    eventually(lambda: carried.log.read_text().count(f"{sent} waits for a worker") > 1, "the second try")


@pytest.mark.slow
def test_the_test_on_the_page_passes(carried):
    assert " 1 passed in " in carried.run("python -m pytest")
