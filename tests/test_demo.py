"""`make demo` counts honestly."""

import subprocess
import time

import pytest
from conftest import ROOT

EXPERIMENT = ROOT / "scripts" / "kill_worker.py"


def demo(project):
    """Run the experiment of `make demo` in an installed project."""
    return subprocess.run(
        [project / ".venv/bin/python", EXPERIMENT, str(time.monotonic())],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_demo_tells_whether_tasks_are_lost(install, tmp_path):
    """Green on the project as it is; red when Celery's default, early acknowledgement, is back."""
    project = install()
    done = demo(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost." in done.stdout

    settings = project / "config/celeryconfig.py"
    original = settings.read_text()
    try:
        settings.write_text(original.replace("task_acks_late = True", "task_acks_late = False"))
        done = demo(project)
    finally:
        settings.write_text(original)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "tasks were LOST." in done.stdout, done.stdout + done.stderr
