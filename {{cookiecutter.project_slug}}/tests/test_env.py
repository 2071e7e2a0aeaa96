"""The environment: what is missing or malformed stops the start, with a line for each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config import env
from dev import BASE_DIR

GOOD = {name: str(os.environ[name]) for name in ("SECRET_KEY", "DATABASE_URL", "CACHE_URL", "BROKER_URL")} | {
    "ALLOWED_HOSTS": "localhost",
    "EMAIL_URL": "console://",
    "DEFAULT_FROM_EMAIL": "webmaster@localhost",
}
BAD = [
    ("SECRET_KEY", "too-short"),
    ("SECRET_KEY", " " * 60),
    ("DEBUG", "perhaps"),
    ("ALLOWED_HOSTS", ""),
    ("ALLOWED_HOSTS", "localhost,,"),
    ("LOG_LEVEL", "LOUD"),
    ("DATABASE_URL", ""),
    ("DATABASE_URL", "postgres://host:not-a-port/name"),
    ("DATABASE_URL", "postgres://host/"),
    ("CACHE_URL", "memcached://host"),
    ("CACHE_URL", "redis://host/name"),
    ("BROKER_URL", "localhost"),
    ("BROKER_TLS_VERIFY", "false"),
    ("EMAIL_URL", "carrier-pigeon://host"),
    ("EMAIL_URL", "submission://"),
    ("DEFAULT_FROM_EMAIL", ""),
    ("SENTRY_DSN", "https://host/1"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
    ("WORKER_CONCURRENCY", "0"),
    ("WORKER_MAX_MEMORY_MB", "0"),
    ("STOP_GRACE", "soon"),
    ("STOP_GRACE", "12"),
]


def start(folder: Path, environment: dict[str, str], code: str = "") -> subprocess.CompletedProcess[str]:
    """Import the settings in a copy that has no .env, then run `code`. All else comes from here."""
    shutil.copytree(BASE_DIR / "config", folder / "config", ignore=shutil.ignore_patterns("__pycache__"))
    return subprocess.run(
        [sys.executable, "-c", f"import config.settings\n{code}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(BASE_DIR), **environment},
        capture_output=True,
        text=True,
    )


def test_a_complete_environment_starts(tmp_path: Path) -> None:
    result = start(tmp_path, GOOD)
    assert (result.returncode, result.stderr) == (0, "")


def test_all_missing_variables_are_named_at_once(tmp_path: Path) -> None:
    result = start(tmp_path, {})
    assert result.returncode == 1
    assert {line.partition(":")[0] for line in result.stderr.splitlines()[:-1]} == GOOD.keys()
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_malformed_value_stops_the_start_with_one_line(name: str, value: str, tmp_path: Path) -> None:
    result = start(tmp_path, {**GOOD, name: value})
    assert result.returncode == 1
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{name}: ")
    assert second.startswith("See .env.example")


def test_an_error_never_repeats_a_password(tmp_path: Path) -> None:
    result = start(tmp_path, {**GOOD, "DATABASE_URL": "mysql://user:hunter2@host/name"})
    assert result.returncode == 1
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(("dsn", "on"), [("https://key@127.0.0.1/1", "True"), ("", "False")])
def test_sentry_is_on_by_its_dsn_alone(dsn: str, on: str, tmp_path: Path) -> None:
    code = "import sentry_sdk; print(sentry_sdk.is_initialized())"
    assert start(tmp_path, {**GOOD, "SENTRY_DSN": dsn}, code).stdout == f"{on}\n"


def test_env_example_documents_every_variable() -> None:
    documented = re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", (BASE_DIR / ".env.example").read_text(), re.MULTILINE)
    read = re.findall(r'_env\.\w+\(\s*"(\w+)"', (BASE_DIR / "config" / "env.py").read_text())
    assert sorted(documented) == sorted(read)
    assert {name for name in vars(env) if name.isupper()} == {*read, "BASE_DIR"}


def test_no_variable_of_somebodys_env_file_reaches_the_tests() -> None:
    """tests/conftest.py sets every one, and the environment wins over `.env`."""
    assert {name for name in vars(env) if name.isupper()} - {"BASE_DIR"} <= os.environ.keys()


def test_a_logged_exception_shows_no_local_variables(tmp_path: Path) -> None:
    """They hold passwords."""
    code = """
import logging.config, structlog
logging.config.dictConfig(config.settings.LOGGING)
try:
    password = "hunter2"
    raise ValueError("on purpose")
except ValueError:
    structlog.get_logger().exception("failed")
"""
    logged = start(tmp_path, GOOD, code).stderr
    assert "on purpose" in logged
    assert "hunter2" not in logged


def test_spaces_around_host_names_do_not_count(tmp_path: Path) -> None:
    code = "print(config.settings.ALLOWED_HOSTS)"
    assert (
        start(tmp_path, {**GOOD, "ALLOWED_HOSTS": "a.test, b.test"}, code).stdout == "['a.test', 'b.test']\n"
    )


def test_env_example_states_the_defaults() -> None:
    text = (BASE_DIR / ".env.example").read_text().lower()
    source = (BASE_DIR / "config" / "env.py").read_text()
    defaults = re.findall(r'"([A-Z_]+)",\s+default="?([\w.]+)', source)
    assert len(defaults) >= 8
    for name, default in defaults:
        assert f"default: {default}\n# {name}={default}\n".lower() in text, name
