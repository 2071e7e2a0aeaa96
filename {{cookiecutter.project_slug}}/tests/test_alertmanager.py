"""A real Alertmanager with monitoring/alertmanager.yaml: a cause silences what follows, and nothing else."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from dev.processes import free_port
from tests.harness import eventually
from tests.test_monitoring import ALERTS, MONITORING, installed

Ask = Callable[[list[dict[str, str]]], set[tuple[str, str]]]
CONFIGURATION = MONITORING / "alertmanager.yaml"
PAIRS = {
    f"{source}, rule {number}": (source, rule)
    for number, rule in enumerate(re.split(r"  - source_", CONFIGURATION.read_text())[1:])
    for source in re.split(r"\|", re.findall(r'alertname =~? "?([^"\]\n]+)', rule)[0])
    if source in ALERTS  # the other broker has some more
}


@pytest.fixture
def silenced(tmp_path: Path) -> Iterator[Ask]:
    """Give a function that tells Alertmanager of alerts, by their labels, and returns which are silenced."""
    program = installed("prometheus-alertmanager")
    url = f"127.0.0.1:{free_port()}"
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            program,
            f"--config.file={CONFIGURATION}",
            f"--storage.path={tmp_path}",
            f"--web.listen-address={url}",
            "--cluster.listen-address=",
        ],
        stdout=log,
        stderr=log,
    )

    def answers() -> bool:
        try:
            return bool(urlopen(f"http://{url}/-/ready", timeout=5).status == 200)
        except OSError:
            return False

    def ask(alerts: list[dict[str, str]]) -> set[tuple[str, str]]:
        told = json.dumps([{"labels": labels} for labels in alerts]).encode()
        urlopen(Request(f"http://{url}/api/v2/alerts", told, {"Content-Type": "application/json"}), timeout=5)
        known = json.load(urlopen(f"http://{url}/api/v2/alerts?active=false", timeout=5))
        return {(one["labels"]["alertname"], one["labels"]["queue"]) for one in known}

    try:
        eventually(answers, "Alertmanager")
        yield ask
    finally:
        process.kill()
        process.wait()
        log.close()


def targets_of(rule: str) -> set[str]:
    """Return the alerts that a rule silences."""
    pattern = re.findall(r'alertname =~? "?([^"\]\n]+)', rule)[1]
    return {alert for alert in ALERTS if re.fullmatch(pattern, alert)}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_cause_silences_what_follows_from_it(pair: str, silenced: Ask) -> None:
    """Where the rule says so only in the same queue, or of the same task."""
    source, rule = PAIRS[pair]
    targets = targets_of(rule) - {source}  # Alertmanager has no alert silence itself
    places = {"here"} if "equal:" in rule else {"here", "there"}
    expected = {(alert, place) for alert in targets for place in places}
    assert expected
    all_of_them = [*targets, "CertificateExpires"]
    followers = [at(place, alert) for place in ("here", "there") for alert in all_of_them]
    assert silenced(followers) < expected  # some silence others
    eventually(lambda: silenced([at("here", source)]) == expected, "silence")


def at(place: str, alert: str) -> dict[str, str]:
    """Return the labels of an alert about a queue and a task of that name."""
    return {"alertname": alert, "queue": place, "task": place}
