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
BAD = {
    "SECRET_KEY": "too-short",
    "DEBUG": "perhaps",
    "ALLOWED_HOSTS": "",
    "LOG_LEVEL": "LOUD",
    "DATABASE_URL": "postgres://host:not-a-port/name",
    "CACHE_URL": "memcached://host",
    "BROKER_URL": "localhost",
    "EMAIL_URL": "carrier-pigeon://host",
    "SENTRY_DSN": "ftp://host",
    "WORKER_CONCURRENCY": "0",
    "TASK_TIME_LIMIT": "soon",
}


def start(folder: Path, environment: dict[str, str], code: str = "") -> subprocess.CompletedProcess[str]:
    """Import the settings in a copy that has no .env, then run `code`."""
    shutil.copytree(BASE_DIR / "config", folder / "config", ignore=shutil.ignore_patterns("__pycache__"))
    return subprocess.run(
        [sys.executable, "-c", f"import config.settings; {code}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
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


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_value_stops_the_start_with_one_line(name: str, tmp_path: Path) -> None:
    result = start(tmp_path, {**GOOD, name: BAD[name]})
    assert result.returncode == 1
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{name}: ")
    assert second == "See .env.example."


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
    assert sorted(documented) == sorted({name for name in vars(env) if name.isupper()} - {"BASE_DIR"})


def test_env_example_states_the_defaults() -> None:
    text = (BASE_DIR / ".env.example").read_text().lower()
    source = (BASE_DIR / "config" / "env.py").read_text()
    defaults = re.findall(r'"([A-Z_]+)",\s+default="?(\w+)', source)
    assert len(defaults) >= 8
    for name, default in defaults:
        assert f"default: {default}\n# {name}={default}\n".lower() in text, name
