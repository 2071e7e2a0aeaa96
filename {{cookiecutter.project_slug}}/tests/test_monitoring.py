"""monitoring/: rules are well-formed, tested, and lead to a runbook; dashboards show what they are about."""

import json
import math
import re
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dev import BASE_DIR
from reliability.management.commands import deadletters

MONITORING = BASE_DIR / "monitoring"
RULES = sorted(path for path in MONITORING.glob("alerts*.yaml") if not path.stem.endswith("_test"))
RUNBOOK = (BASE_DIR / "docs" / "runbook.md").read_text()
ALERTS: dict[str, str] = {
    alert: text
    for path in RULES
    for alert, text in re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", path.read_text(), re.DOTALL)
}
FOREIGN = r"rabbitmq_\w+"  # told by others than metrics/
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (MONITORING / "dashboards").glob("*.json")}
PANELS: dict[str, dict[str, Any]] = {
    f"{name}: {panel['title']}": panel
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
}
COLOURS = {"page": "red", "ticket": "orange"}


def installed(program: str) -> str:
    """Return the name of a program of Prometheus; skip where it is not installed."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return program


def checked_by(program: str, *arguments: str) -> str:
    """Return what a program of Prometheus says, which must be content."""
    done = subprocess.run([installed(program), *arguments], cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_leads_to_the_runbook(alert: str) -> None:
    text = ALERTS[alert]
    assert re.search(r"severity: (page|ticket|none)\n", text)
    assert re.search(r"summary: .{30,}", text)
    assert re.search(rf"runbook_url: (https?://\S+/)?docs/runbook\.md#{alert.lower()}$", text, re.MULTILINE)


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_says_what_an_alert_means_what_to_do_and_when_it_is_over(alert: str) -> None:
    (entry,) = re.findall(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    meaning, commands, over = re.split(r"```sh\n|```\n", entry)
    assert len(meaning.split()) > 10
    assert len(commands.splitlines()) == 3
    assert "It is over when" in over


def test_the_runbook_has_no_heading_too_many() -> None:
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)


def test_the_runbook_calls_deadletters_as_it_wants_to_be_called() -> None:
    called = re.findall(r"deadletters ((?:list|show|requeue|discard)\b[^`\n]*)", RUNBOOK)
    assert len(called) > 5
    for arguments in called:
        deadletters.Command().create_parser("manage.py", "deadletters").parse_args(shlex.split(arguments))


def test_each_test_of_rules_has_its_rules() -> None:
    tests = {path.stem.removesuffix("_test") for path in MONITORING.glob("*_test.yaml")}
    assert tests == {path.stem for path in RULES}


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_alert_fires_after_its_fault_and_not_without(path: Path) -> None:
    test = path.with_name(f"{path.stem}_test.yaml")
    own = re.findall(r"- alert: (\w+)", path.read_text())
    tested = re.findall(r"- name: (\w+) (fires|is quiet)\n", test.read_text())
    assert all(re.search(r"^        for: \d+m$", ALERTS[alert], re.MULTILINE) for alert in own)
    assert {alert for alert, what in tested if what == "fires"} == set(own)
    assert {alert for alert, what in tested if what == "is quiet"} == set(own) - {"DeadMansSwitch"}
    assert "SUCCESS" in checked_by("promtool", "check", "rules", path.name)
    assert "SUCCESS" in checked_by("promtool", "test", "rules", test.name)


def metrics_in(text: str) -> set[str]:
    """Return the names of the metrics that a query, or a rule, asks for."""
    return set(re.findall(r"\b(?:celery|rabbitmq|web|process)_\w+|\bup\b|\bALERTS\b", text))


def rule(alert: str) -> str:
    """Return what an alert asks, without its labels and its texts."""
    return ALERTS[alert].partition("expr:")[2].partition("labels:")[0]


def expressions(panel: dict[str, Any]) -> str:
    """Return the queries of a panel."""
    return "\n".join(target["expr"] for target in panel["targets"])


def alerts_of(panel: dict[str, Any]) -> list[str]:
    """Return the alerts that a panel's description names."""
    return re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", panel["description"])


def test_rules_and_panels_ask_for_nothing_that_nobody_tells() -> None:
    source = "".join(path.read_text() for path in (BASE_DIR / "metrics").glob("*.py"))
    told = set(re.findall(r'"((?:celery|web)_\w+)"', source))
    told |= {f"{name}_{suffix}" for name in told for suffix in ("total", "info", "bucket")}
    told |= {"up", "ALERTS", "process_start_time_seconds"}  # by Prometheus and its client
    asked = metrics_in("\n".join([*map(rule, ALERTS), *map(expressions, PANELS.values())]))
    assert {name for name in asked - told if not re.fullmatch(FOREIGN, name)} == set()


def test_dashboards_can_be_told_apart() -> None:
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) > 0


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_panels_of_a_dashboard_have_names_and_places_of_their_own(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    taken = Counter(
        (place["x"] + right, place["y"] + down)
        for place in places
        for right in range(place["w"])
        for down in range(place["h"])
    )
    assert max(taken.values()) == 1


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_prometheus(title: str) -> None:
    panel = PANELS[title]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["legendFormat"] for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) > 0


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_turns_red_where_an_alert_pages_and_orange_where_it_is_a_ticket(title: str) -> None:
    """Each alert that a panel names exists; each limit that it shows is that of one of them."""
    panel = PANELS[title]
    alerts = alerts_of(panel)
    assert set(alerts) <= ALERTS.keys()
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    colours = {step["color"] for step in steps} & set(COLOURS.values())
    if "ALERTS" in expressions(panel):
        return  # shows the alerts themselves
    assert colours <= {COLOURS[re.findall(r"severity: (\w+)", ALERTS[alert])[0]] for alert in alerts}
    limits = {
        math.prod(map(float, limit.split("*")))
        for alert in alerts
        for limit in re.findall(r"(?:[<>]|==) ([\d.]+(?: \* [\d.]+)*)", rule(alert))
    }
    limits |= {limit + 1 for limit in limits}  # above 3 is from 4 on, where things are counted
    assert {step["value"] for step in steps} - {None} <= limits


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_panel_that_shows_its_figures(alert: str) -> None:
    named = [panel for panel in PANELS.values() if alert in alerts_of(panel)]
    asked = metrics_in(rule(alert)) or {"ALERTS"}
    assert any(asked & metrics_in(expressions(panel)) for panel in named)


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
