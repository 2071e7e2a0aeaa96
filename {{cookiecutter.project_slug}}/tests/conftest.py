"""The servers are planned here, before Django reads its settings; the first test to need them starts them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command

from dev import BASE_DIR, throwaway
from dev.processes import MissingProgramError
from tests.web import Web, status

try:
    STACK = throwaway.plan()
except MissingProgramError as error:
    pytest.exit(str(error), returncode=1)
os.environ.update(  # every variable, so that nobody's .env changes a test
    STACK.urls,
    DJANGO_SETTINGS_MODULE="tests.settings",
    SECRET_KEY="of-no-use-outside-the-tests-but-long-enough-for-them-all",
    DEBUG="false",
    ALLOWED_HOSTS="testserver",
    EMAIL_URL="console://",
    DEFAULT_FROM_EMAIL="tests@example.com",
    SENTRY_DSN="",
    OTEL_EXPORTER_OTLP_ENDPOINT="",
    LOG_LEVEL="INFO",
    BEHIND_TLS_PROXY="false",
    BROKER_TLS_VERIFY="on",
    PORT="8000",
    HEALTH_TOKEN="",
    METRICS_HOST="127.0.0.1",
    METRICS_PORT="0",
    CERTIFICATES="",
    WORKER_RESTART_IF_DEAF="false",
    WEB_CONCURRENCY="2",
    WEB_THREADS="4",
    WORKER_CONCURRENCY="2",
    WORKER_MAX_MEMORY_MB="400",
    STOP_GRACE="13",  # a hard limit of 3 s
    # jinja: if cookiecutter.deploy != "heroku"
    LONG_STOP_GRACE="14",  # of 4 s in the queue `long`
    # jinja: endif
    # jinja: if cookiecutter.broker == "redis"
    TASK_LONGEST_DELAY="1",  # a visibility timeout of 9 s
    # jinja: endif
)

django.setup()

from reliability.conf import enabled  # noqa: E402  # needs the settings
from tests.brokers import broker, other_broker, started_broker  # noqa: E402, F401  # fixtures
from tests.harness import (  # noqa: E402  # needs the settings
    COMMAND,
    Exporter,
    StartWorker,
    Worker,
    answers,
    broker_is_empty,
    database_url,
    empty_broker,
    eventually,
)


def pytest_report_header() -> list[str]:
    """Say at the top which servers the tests use."""
    return STACK.report()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Leave nothing of this process to the workers of pytest-xdist: each plans servers of its own."""
    for variable in (*(STACK.urls.keys() - STACK.given.keys()), "DJANGO_SETTINGS_MODULE"):
        del os.environ[variable]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the proofs of a promise that WITHOUT switches off: `make test WITHOUT=drain`."""
    for mark in item.iter_markers("promise"):
        if not enabled(mark.args[0]):
            pytest.skip(f"{mark.args[0]} is switched off")


@pytest.fixture(scope="session")
def servers() -> Iterator[None]:
    """PostgreSQL and the broker, empty, for the whole run."""
    with throwaway.running(STACK):
        if not broker_is_empty():
            pytest.exit(
                "BROKER_URL leads to a broker that holds messages, and tests empty theirs: give them another."
            )
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: None) -> None:
    """Have the servers before pytest-django makes the test database."""


@pytest.fixture(scope="session", autouse=True)
def collected_static_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pages link to static files by the names that collectstatic gives them."""
    settings.STATIC_ROOT = str(tmp_path_factory.mktemp("static"))
    call_command("collectstatic", interactive=False, verbosity=0)


@pytest.fixture
def start_worker(servers: None, transactional_db: None, tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers on an empty broker and the test database: `start_worker("-X", "long", PATIENCE="1")`."""
    empty_broker()
    workers: list[Worker] = []

    def start(*options: str, **environment: str) -> Worker:
        name = f"worker-{len(workers)}"  # RabbitMQ refuses a second worker of one name
        workers.append(Worker(tmp_path / f"{name}.log", environment, [*COMMAND, "-n", name, *options]))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
    empty_broker()


@pytest.fixture
def start_beat(servers: None, tmp_path: Path) -> Iterator[StartWorker]:
    """Start a beat that sends every 5 s on an empty broker; the name is that of its schedule file.

    `app` names another schedule.
    """
    empty_broker()
    beats: list[Worker] = []

    def start(name: str, app: str = "tests.ticking", **environment: str) -> Worker:
        command = ["-A", app, "beat", "--loglevel", "INFO", "--schedule", str(tmp_path / name)]
        environment = {"BROKER_URL": os.environ["BROKER_URL"], **environment}
        beats.append(Worker(tmp_path / f"beat-{len(beats)}.log", environment, command))
        return beats[-1]

    yield start
    for beat in beats:
        beat.kill()
    empty_broker()


@pytest.fixture
def start_web(servers: None, transactional_db: None) -> Iterator[Callable[..., Web]]:
    """Start web on the test database, and return when it is live. Without DEBUG it needs collected files."""
    started: list[Web] = []

    def start(**environment: str) -> Web:
        started.append(Web(**{"DATABASE_URL": database_url(), "DEBUG": "true", **environment}))
        eventually(lambda: status(f"{started[-1].url}/livez") == 200, "gunicorn listens")
        return started[-1]

    yield start
    for web in started:
        web.process.terminate()  # it takes its folder of figures away
        web.process.wait()


@pytest.fixture
def start_exporter(
    servers: None, transactional_db: None, tmp_path: object
) -> Iterator[Callable[..., Worker]]:
    """Start exporters on an empty broker, an empty cache and the test database."""
    empty_broker()
    cache.clear()
    started: list[Worker] = []

    def start(**environment: str) -> Worker:
        log = BASE_DIR / ".local" / f"exporter-{os.getpid()}-{len(started)}.log"
        log.parent.mkdir(exist_ok=True)
        started.append(Exporter(log, {"BROKER_URL": os.environ["BROKER_URL"], **environment}, ()))
        eventually(lambda: answers(started[-1]), "the exporter to answer")
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.log.unlink()
    empty_broker()
