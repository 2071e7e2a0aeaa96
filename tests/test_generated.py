"""A generated project's own commands, run as its owner would run them."""

import os
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


def without(*names):
    """Return what has pytest leave out these files: for time, where another run has them."""
    return " ".join(f"--ignore tests/test_{name}.py" for name in names)


CHECKED = {
    "redis, Django 5.2": ({}, ""),
    # What goes to a browser, to Sentry or to a collector does not differ by the broker.
    "rabbitmq, Django 5.2": ({"broker": "rabbitmq"}, without("flower", "sentry", "status", "tracing", "web")),
    "redis, Django 6.1": ({"django": "6.1"}, OF_DJANGO),
}

INVARIANTS = {"kubernetes": 25, "systemd": 20, "heroku": 19}  # at the least; what a platform lacks has none


@pytest.mark.slow
def test_make_test_passes_with_every_switch_off(install):
    """Nothing relies on a promise that a team has switched off."""
    project = install()
    conf = (project / "reliability" / "conf.py").read_text()
    switches = re.findall(r'^    "(\w+)",  # \w+\.py: ', conf, re.MULTILINE)
    assert len(switches) > 10
    environment = {**os.environ, "WITHOUT": " ".join(switches)}
    arguments = f"ARGS={without('env', 'flower', 'monitoring', 'status', 'web')}"  # what no switch changes
    command = ["make", "test", f"PYTHON={python_for({})}", arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed, skipped = (int(re.search(rf"(\d+) {word}", done.stdout)[1]) for word in ("passed", "skipped"))
    assert passed > skipped > 100, done.stdout[-2000:]  # the proofs of the promises themselves are skipped


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
    assert all(re.search("Redis|RabbitMQ|not installed", line) for line in skipped), skipped  # what others can do
    assert "System check identified no issues (0 silenced)." in done.stdout
    assert list((project / ".local").glob("throwaway-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
@pytest.mark.parametrize("deploy", INVARIANTS)
def test_numbers_agree_on_the_other_platforms(deploy, broker, bake, install, tmp_path):
    """The suites above are those of projects that deploy by Compose."""
    project = shutil.copytree(bake(deploy=deploy, broker=broker), tmp_path / "project", symlinks=True)
    files = [name for name in ("tests/test_invariants.py", "tests/test_socket.py") if (project / name).exists()]
    assert ("tests/test_socket.py" in files) == (deploy == "systemd")
    command = [install() / ".venv" / "bin" / "python", "-m", "pytest", *files]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 2 * INVARIANTS[deploy]
