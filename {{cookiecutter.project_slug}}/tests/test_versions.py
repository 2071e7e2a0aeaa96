"""The warning about a celery or kombu that was not tested."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev import BASE_DIR
from tests.harness import COMMAND, Worker

pytestmark = pytest.mark.promise("check_versions")


@pytest.fixture
def newer(tmp_path: Path) -> str:
    """A folder for PYTHONPATH, in which Python finds the metadata of a later celery and kombu."""
    for package in ("celery", "kombu"):
        metadata = tmp_path / f"{package}-5.8.0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 5.8.0\n")
    return str(tmp_path)


def check(**environment: str) -> str:
    """Return what `manage.py check` prints."""
    result = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=BASE_DIR,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout + result.stderr


def test_the_check_warns_about_another_minor_version(newer: str) -> None:
    shown = check(PYTHONPATH=newer)
    for package in ("celery", "kombu"):
        assert f"(reliability.W040) {package} 5.8.0 is installed" in shown
        assert f"Install {package}==5.7.*" in shown


def test_the_check_is_silent_about_the_tested_versions() -> None:
    assert "reliability.W040" not in check()


def test_the_check_can_be_switched_off(newer: str) -> None:
    assert "reliability.W040" not in check(PYTHONPATH=newer, WITHOUT="check_versions")


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("command", [COMMAND, ["-A", "config", "beat"]], ids=["worker", "beat"])
def test_workers_and_beat_log_it_when_they_start(command: list[str], newer: str, tmp_path: Path) -> None:
    """Celery runs the system checks there, and drops what they say."""
    environment = {"PYTHONPATH": newer, "BROKER_URL": os.environ["BROKER_URL"]}
    schedule = ["--schedule", str(tmp_path / "schedule")]
    process = Worker(tmp_path / "log", environment, [*command, *schedule])
    try:
        process.wait_for("celery 5.8.0 is installed")
    finally:
        process.kill()
