"""The servers are planned here, before Django reads its settings; the first test to need them starts them."""

import os
from collections.abc import Iterator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.management import call_command

from dev import throwaway
from dev.processes import MissingProgramError

try:
    STACK = throwaway.plan()
except MissingProgramError as error:
    pytest.exit(str(error), returncode=1)
os.environ.update(  # every variable, so that nobody's .env changes a test
    STACK.urls,
    DJANGO_SETTINGS_MODULE="config.settings",
    SECRET_KEY="of-no-use-outside-the-tests-but-long-enough-for-them-all",
    DEBUG="false",
    ALLOWED_HOSTS="testserver",
    EMAIL_URL="console://",
    DEFAULT_FROM_EMAIL="tests@example.com",
    SENTRY_DSN="",
    LOG_LEVEL="INFO",
    BEHIND_TLS_PROXY="false",
    PORT="8000",
    WEB_CONCURRENCY="2",
    WEB_THREADS="4",
    WORKER_CONCURRENCY="2",
    TASK_TIME_LIMIT="3",
    # jinja: if cookiecutter.broker == "redis"
    TASK_LONGEST_DELAY="0",  # a visibility timeout of 6 s
    # jinja: endif
)

django.setup()

from tests.harness import StartWorker, Worker, broker_is_empty, empty_broker  # noqa: E402  # needs the settings


def pytest_report_header() -> list[str]:
    """Say at the top which servers the tests use."""
    return STACK.report()


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
    """Start real workers on an empty broker and the test database: `start_worker(TASK_TIME_LIMIT="5")`."""
    empty_broker()
    workers: list[Worker] = []

    def start(**environment: str) -> Worker:
        workers.append(Worker(tmp_path / f"worker-{len(workers)}.log", environment))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
    empty_broker()
