"""The fault suite of a generated project, run as its owner would run it."""

import os
import shutil
import subprocess

import pytest

FAULTS = {"redis": 36, "rabbitmq": 36}  # lines of its table at the least


@pytest.mark.slow
@pytest.mark.parametrize("broker", FAULTS)
def test_make_faults_passes(broker, install):
    if broker == "rabbitmq" and not (
        shutil.which("rabbitmq-server") or shutil.which("/usr/lib/rabbitmq/bin/rabbitmq-server")
    ):
        pytest.skip("rabbitmq-server is not installed")
    environment = {**os.environ, "PYTEST_XDIST_AUTO_NUM_WORKERS": "1"}  # another test runs beside this one
    # That the alerts arrive is shown with one broker here, for time; `make faults` shows it with both.
    command = ["make", "faults", *(["ARGS=--ignore faults/test_alerts.py"] if broker == "rabbitmq" else [])]
    project = install(broker=broker)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    table = [line for line in done.stdout.splitlines() if f"  {broker}  " in line and "  ours  " in line]
    assert len(table) >= FAULTS[broker], done.stdout[-8000:]
