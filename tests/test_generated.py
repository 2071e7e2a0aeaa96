"""A generated project's own commands, run as its owner would run them."""

import re
import shutil
import subprocess

import pytest
from conftest import python_for

# What differs by Django alone is not the worker's: there the tests that speak to Django will do.
OF_DJANGO = " ".join(
    f"tests/test_{name}.py"
    for name in ("admin", "celeryconfig", "deadletters_admin", "deferred", "env", "jobs", "letters", "sending", "web")
)
CHECKED = {
    "redis, Django 5.2": ({}, ""),
    "rabbitmq, Django 5.2": ({"broker": "rabbitmq"}, ""),
    "redis, Django 6.1": ({"django": "6.1"}, OF_DJANGO),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CHECKED)
def test_make_check_passes(case, install):
    answers, tests = CHECKED[case]
    if answers.get("broker") == "rabbitmq" and not (
        shutil.which("rabbitmq-server") or shutil.which("/usr/lib/rabbitmq/bin/rabbitmq-server")
    ):
        pytest.skip("rabbitmq-server is not installed")
    project = install(**answers)
    command = ["make", "check", f"PYTHON={python_for(answers)}", f"ARGS={tests}"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all(re.search("Redis|RabbitMQ", line) for line in skipped), skipped  # what the other broker alone can do
    assert "System check identified no issues (0 silenced)." in done.stdout
    assert list((project / ".local").glob("throwaway-*")) == []
