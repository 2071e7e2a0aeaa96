"""The servers of the fault suite are its own, always: they are killed and frozen."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import pytest_django
from django.core.management import call_command
from django.db import connections

from dev.stack import SERVERS, VARIABLES

for _variable in VARIABLES:
    os.environ.pop(_variable, None)

from faults import profiles, report, results  # noqa: E402
from tests.conftest import (  # noqa: E402  # plans the servers, so after the lines above
    STACK,
    pytest_report_header,
    pytest_runtest_setup,
    pytest_xdist_setupnodes,
    servers,
)

if len(STACK.servers) < len(SERVERS):
    pytest.exit(
        "The fault suite kills its servers, so it needs its own: the line above says what is missing.", 1
    )

from faults.world import World  # noqa: E402

__all__ = [
    "STACK",
    "pytest_report_header",
    "pytest_runtest_setup",
    "pytest_xdist_setupnodes",
    "servers",
]
BROKER = "redis" if STACK.urls["BROKER_URL"].startswith("redis") else "rabbitmq"
MakeWorld = Callable[..., World]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full` is what `make faults-full` adds."""
    parser.addoption("--full", action="store_true", help="compare, run the mutations, write docs/faults.md")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each scenario its profiles: ours alone, with --full also those to compare with."""
    if "world" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        names = ["ours", *profiles.COMPARED] if full else ["ours"]
        ids = [BROKER, *(f"{BROKER}-{name}" for name in names[1:])]
        metafunc.parametrize("world", names, ids=ids, indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of the scenarios that are not for every run."""
    for broker in ("redis", "rabbitmq"):
        config.addinivalue_line("markers", f"{broker}: a fault that only this broker knows")
    config.addinivalue_line("markers", "full: only with --full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the scenarios of the other broker, and without --full the mutations."""
    marks = ["rabbitmq" if BROKER == "redis" else "redis", *([] if config.getoption("--full") else ["full"])]
    left_out = [item for item in items if any(map(item.get_closest_marker, marks))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def tables(servers: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> None:
    """The project's tables, in the empty database of this run."""
    with django_db_blocker.unblock():
        call_command("migrate", interactive=False, verbosity=0)
        connections.close_all()


@pytest.fixture
def make_world(request: pytest.FixtureRequest, tables: None, tmp_path: Path) -> Iterator[MakeWorld]:
    """Make worlds: `make_world(scenario, "defaults")`. The scenario's first line names the fault."""
    by_variable = {variable: server for server in STACK.servers for variable in server.variables}
    worlds = []

    def make(scenario: Callable[..., None], profile: str) -> World:
        fault = str(scenario.__doc__).splitlines()[0].removesuffix(".")
        worlds.append(World(fault, profile, by_variable, tmp_path))
        return worlds[-1]

    yield make
    found = request.node.user_properties
    for world in worlds:
        world.end()
        world.broker.start()  # a scenario that failed may have left it dead
        found.append(("server", world.broker.version()))
        found.extend(("row", asdict(row)) for row in world.rows)


@pytest.fixture
def world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    """The world of a scenario, with the profile of its parameter."""
    return make_world(request.function, request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; with --full write docs/faults.md too, unless something failed or was left out."""
    if hasattr(config, "workerinput"):  # a process of pytest-xdist, which knows its own share alone
        return
    reports = [one for one in terminalreporter.stats.get("", []) if one.when == "teardown"]
    reports.sort(key=lambda one: one.location)
    found = [(name, value) for one in reports for name, value in one.user_properties]
    rows = [results.Row(**value) for name, value in found if name == "row"]
    rows = [row for row in rows if row.profile in ("ours", *profiles.COMPARED)]
    for line in results.lines(rows):
        terminalreporter.write_line(line)
    mutations = [value for name, value in found if name == "mutation"]
    failed = terminalreporter.stats.keys() & {"failed", "error"}
    if config.getoption("--full") and mutations and not failed and not config.option.keyword:
        server = next(value for name, value in found if name == "server")
        terminalreporter.write_line(f"Written: {report.write(BROKER, server, rows, mutations)}")
