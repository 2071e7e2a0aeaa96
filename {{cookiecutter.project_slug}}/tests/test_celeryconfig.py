"""config/celeryconfig.py: the form of its comments, its names, and the relations between its numbers."""

import ast
import os
import re
import subprocess
import sys
from datetime import timedelta

import pytest
from celery.app.defaults import NAMESPACES, flatten
from django.conf import settings

from config import celeryconfig
from config.celery import app
from dev import BASE_DIR

KNOWN = set(dict(flatten(NAMESPACES)))
OURS = {name for name in vars(celeryconfig) if name.islower() and not name.startswith("_")}
SOURCE = (BASE_DIR / "config" / "celeryconfig.py").read_text()
LABELS = ["Why", "Without it", "Price", "Proof"]


def comment_above(name: str) -> list[str]:
    """Return the comment lines that stand directly above a setting."""
    for statement in ast.parse(SOURCE).body:
        target = getattr(statement, "target", None) or getattr(statement, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == name:
            above = SOURCE.splitlines()[: statement.lineno - 1]
            start = next(i for i in range(len(above), 0, -1) if not above[i - 1].startswith("#"))
            return above[start:]
    raise LookupError(name)


def test_every_name_is_known_to_celery() -> None:
    """Celery ignores a name that it does not know, without a word."""
    assert sorted(OURS - KNOWN) == []


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_stands_beside_its_reason(name: str) -> None:
    comment = comment_above(name)
    labels = [match[1] for line in comment if (match := re.match(r"# ([A-Z][a-z ]+): ", line))]
    assert labels == LABELS
    assert re.fullmatch(r"# https://docs\.celeryq\.dev/\S+", comment[-1])


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_proof_exists(name: str) -> None:
    proofs = re.findall(r"(tests/\w+\.py)::(\w+)", "\n".join(comment_above(name)))
    assert proofs
    for path, test in proofs:
        assert f"def {test}(" in (BASE_DIR / path).read_text()


def test_the_soft_limit_leaves_time_before_the_hard_one() -> None:
    assert 0 < celeryconfig.task_soft_time_limit < celeryconfig.task_time_limit


# jinja: if cookiecutter.broker == "redis"
def test_the_visibility_timeout_covers_the_longest_delay_and_run() -> None:
    timeout = celeryconfig.broker_transport_options["visibility_timeout"]
    assert timeout > int(os.environ["TASK_LONGEST_DELAY"]) + celeryconfig.task_time_limit


# jinja: endif
def test_concurrency_comes_from_the_environment() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "from config.celery import app; print(app.conf.worker_concurrency)"],
        cwd=BASE_DIR,
        env={**os.environ, "WORKER_CONCURRENCY": "7"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "7\n"


def test_workers_have_no_connection_pool() -> None:
    code = (
        "from celery.signals import worker_init; from config import celery; from django.db import connection;"
        "before = connection.settings_dict['OPTIONS'].get('pool'); worker_init.send(sender=None);"
        "print(bool(before), connection.pool)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=BASE_DIR, check=True, capture_output=True, text=True
    )
    assert shown.stdout == "True None\n"


def test_schedule_and_django_agree_on_the_time_zone() -> None:
    assert celeryconfig.timezone == settings.TIME_ZONE


@pytest.mark.parametrize("name", celeryconfig.beat_schedule)
def test_schedule_names_real_tasks_that_expire_before_the_next_is_due(name: str) -> None:
    app.loader.import_default_modules()
    entry = celeryconfig.beat_schedule[name]
    assert entry["task"] in app.tasks
    now = app.now()
    first = now + entry["schedule"].remaining_estimate(now) + timedelta(seconds=1)
    second = now + entry["schedule"].remaining_estimate(first)
    assert 0 < entry["options"]["expires"] <= round((second - first).total_seconds() + 1)
