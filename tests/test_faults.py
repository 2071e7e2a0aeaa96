"""The fault suite of a generated project, run as its owner would run it."""

import os
import re
import shutil
import subprocess

import pytest

FAULTS = {"redis": 36, "rabbitmq": 36}  # lines of its table at the least


def run_faults(broker, arguments, install):
    """Run scenarios of this broker, and return what was printed."""
    if broker == "rabbitmq" and not (
        shutil.which("rabbitmq-server") or shutil.which("/usr/lib/rabbitmq/bin/rabbitmq-server")
    ):
        pytest.skip("rabbitmq-server is not installed")
    environment = {**os.environ, "PYTEST_XDIST_AUTO_NUM_WORKERS": "1"}  # another test runs beside this one
    command = ["make", "faults", f"ARGS={arguments}"]
    project = install(broker=broker)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("broker", FAULTS)
def test_make_faults_passes(broker, install):
    shown = run_faults(broker, "--ignore faults/test_alerts.py --ignore faults/test_dashboards.py", install)
    table = [line for line in shown.splitlines() if f"  {broker}  " in line and "  ours  " in line]
    assert len(table) >= FAULTS[broker], shown[-8000:]


@pytest.mark.slow
def test_alerts_arrive_after_their_faults_and_dashboards_have_data(install):
    """A dozen alerts with one broker, for time; `make faults` of this repository shows all with both."""
    if not shutil.which("prometheus-alertmanager"):
        pytest.skip("prometheus and prometheus-alertmanager are not installed")
    shown = run_faults("redis", '-k "test_dashboards or test_alerts and (healthy or down or fail)"', install)
    assert int(re.search(r"(\d+) passed", shown)[1]) >= 11
