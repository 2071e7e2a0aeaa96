"""monitoring/: the rules are well-formed, tested, and lead to a runbook that says what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dev import BASE_DIR

MONITORING = BASE_DIR / "monitoring"
RULES = sorted(path for path in MONITORING.glob("alerts*.yaml") if not path.stem.endswith("_test"))
RUNBOOK = (BASE_DIR / "docs" / "runbook.md").read_text()
ALERTS = {
    alert: text
    for path in RULES
    for alert, text in re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", path.read_text(), re.DOTALL)
}
# What others than metrics/ tell: Prometheus, the Python client, RabbitMQ.
FOREIGN = r"up|ALERTS|process_start_time_seconds|rabbitmq_\w+"


def checked_by(program: str, *arguments: str) -> str:
    """Return what a program of Prometheus says, which must be content; skip where it is not installed."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    done = subprocess.run([program, *arguments], cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_leads_to_the_runbook(alert: str) -> None:
    text = ALERTS[alert]
    assert re.search(r"severity: (page|ticket|none)\n", text)
    assert re.search(r"summary: .{30,}", text)
    assert f"runbook_url: docs/runbook.md#{alert.lower()}" in text


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_says_what_an_alert_means_what_to_do_and_when_it_is_over(alert: str) -> None:
    (entry,) = re.findall(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    meaning, commands, over = re.split(r"```sh\n|```\n", entry)
    assert len(meaning.split()) > 10
    assert len(commands.splitlines()) == 3
    assert "It is over when" in over


def test_the_runbook_has_no_heading_too_many() -> None:
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_alert_fires_after_its_fault_and_not_without(path: Path) -> None:
    test = path.with_name(f"{path.stem}_test.yaml")
    own = re.findall(r"- alert: (\w+)", path.read_text())
    tested = re.findall(r"- name: (\w+) (fires|is quiet)\n", test.read_text())
    assert {alert for alert, what in tested if what == "fires"} == set(own)
    assert {alert for alert, what in tested if what == "is quiet"} == set(own) - {"DeadMansSwitch"}
    assert "SUCCESS" in checked_by("promtool", "check", "rules", path.name)
    assert "SUCCESS" in checked_by("promtool", "test", "rules", test.name)


def test_rules_ask_for_nothing_that_nobody_tells() -> None:
    source = "".join(path.read_text() for path in (BASE_DIR / "metrics").glob("*.py"))
    told = set(re.findall(r'"(celery_\w+)"', source))
    told |= {f"{name}_total" for name in told} | {f"{name}_info" for name in told}
    asked = {name for text in ALERTS.values() for name in re.findall(r"\bcelery_\w+|\brabbitmq_\w+", text)}
    assert {name for name in asked - told if not re.fullmatch(FOREIGN, name)} == set()


def test_what_is_held_back_exists() -> None:
    """One file serves both brokers, so some of it names alerts of the other one."""
    text = (MONITORING / "alertmanager.yaml").read_text()
    patterns = {
        pattern
        for found in re.findall(r'alertname =~? "?([^"\]\n]+)', text)
        for pattern in found.split("|")
        if not any(re.fullmatch(pattern, alert) for alert in ALERTS)
    }
    assert patterns <= {
        "BrokerAlarm",
        "BrokerMetricsMissing",
        "HeldForTooLong",
        "BrokerEvicts",
        "BrokerHasEvicted",
    }
    checked_by("amtool", "check-config", "alertmanager.yaml")


def test_prometheus_accepts_its_configuration() -> None:
    text = (MONITORING / "prometheus.yaml").read_text()
    help_text = checked_by("prometheus", "--version")
    if "kubernetes_sd_configs" in text and "debian" in help_text.lower():
        pytest.skip("Debian builds Prometheus without the discovery of Kubernetes")
    checked_by("promtool", "check", "config", "prometheus.yaml")
