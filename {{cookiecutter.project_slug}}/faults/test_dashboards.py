"""Every query of every panel finds data in a real stack: a picture that stays empty calms without reason."""

import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

import pytest
import trustme

from dev import BASE_DIR
from faults.alerting import MISSING, Monitoring
from faults.test_alerts import repeatedly, start_beat, start_worker, tls_server
from faults.world import World
from tests.harness import database_url, eventually
from tests.web import Web

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
RATE_INTERVAL = "4s"  # Grafana's $__rate_interval: four scrapes


class Query(NamedTuple):
    """One query of a panel."""

    dashboard: str
    panel: str
    expr: str
    instant: bool = False  # whether it asks for now alone, not for a time


@pytest.fixture
def monitoring(world: World, tmp_path: Path) -> Iterator[Monitoring]:
    """What watches the world, and a server with a certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with tls_server() as (port, show):
        show(authority.issue_cert("localhost"))
        world.environment["CERTIFICATES"] = f"localhost:{port}"
        world.environment["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")
        started = Monitoring(world)
        yield started
        started.end()


@pytest.fixture
def web(monitoring: Monitoring) -> Iterator[Web]:
    """Web, which is watched."""
    started = Web(DATABASE_URL=database_url(), DEBUG="true")
    monitoring.watch("web", started)
    yield started
    started.process.terminate()  # it takes its folder of figures away
    started.process.wait()


def test_every_query_of_every_panel_finds_data(world: World, monitoring: Monitoring, web: Web) -> None:
    """Tasks succeed, fail, are tried again and come back, while pages are read."""
    start_worker(world, monitoring)
    start_beat(world, monitoring, "one")
    eventually(lambda: monitoring.value('up{job="web"} == 1'), "a healthy web")

    begun = time.time()
    mistaken = [
        Query("d", "wrong name", "max(celery_queue_mesages)"),
        Query("d", "no number", "0 * max(up) / 0"),
        Query("d", "no query", "max(up", instant=True),
        Query("d", "good", "max(up)"),
    ]
    assert [query.panel for query in without_data(monitoring, mistaken, begun)] == [
        "wrong name",
        "no number",
        "no query",
    ]

    def load() -> None:
        world.send(seconds=0.1)
        for task in ("read_row", "unlucky"):
            world.send(task)
        world.send("come_back", times=1)
        for page in ("/", "/nowhere"):
            web.get(page)

    with repeatedly(load):
        eventually(lambda: monitoring.value("max(celery_dead_letters) > 0"), "the first dead letter")
        left = [query for path in dashboards() for query in queries(monitoring, path)]
        assert left

        def all_found() -> bool:
            left[:] = without_data(monitoring, left, begun)
            return not left

        with suppress(AssertionError):  # the one below says which
            eventually(all_found, "data")
    assert not left, "\n".join(["no data:", *map(str, left)])


def dashboards() -> list[Path]:
    """Return the dashboards of this project."""
    return sorted((BASE_DIR / "monitoring" / "dashboards").glob("*.json"))


def queries(monitoring: Monitoring, path: Path) -> list[Query]:
    """Return the queries of a dashboard as Grafana sends them, each of its variables being "All"."""
    dashboard = json.loads(path.read_text())
    values = {"__rate_interval": RATE_INTERVAL}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.findall(r"\w+", variable["query"].removeprefix("label_values"))
            choices = monitoring.ask(f"label/{label}/values", **{"match[]": metric})
            assert choices, f"{path.name}: ${variable['name']} has no values"
            values[variable["name"]] = "|".join(map(re.escape, choices)).replace("\\", "\\\\")

    def sent(expr: str) -> str:
        """Ask without the zero that stands for nothing, but for alerts: that none fires is data."""
        asked = expr if "ALERTS" in expr else expr.replace(" or vector(0)", "")
        return re.sub(r"\$(\w+)", lambda name: values[name[1]], asked)

    return [
        Query(path.stem, panel["title"], sent(target["expr"]), target.get("instant", False))
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def without_data(monitoring: Monitoring, asked: list[Query], begun: float) -> list[Query]:
    """Return those of the queries that Prometheus refuses, or that find no number since `begun`."""
    return [query for query in asked if all(map(math.isnan, found(monitoring, query, begun)))]


def found(monitoring: Monitoring, query: Query, begun: float) -> Iterator[float]:
    """Yield all values that a query finds."""
    series: list[dict[str, Any]] = []
    with suppress(HTTPError):
        if query.instant:
            series = monitoring.ask("query", query=query.expr)["result"]
        else:
            times = {"start": begun, "end": time.time(), "step": 1}
            series = monitoring.ask("query_range", query=query.expr, **times)["result"]
    for one in series:
        for _, value in one.get("values") or [one["value"]]:
            yield float(value)
