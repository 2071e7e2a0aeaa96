"""What production does for backups, and what docs/backups.md says to do with one, against a real database."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from django.db import connection

from dev import BASE_DIR
from dev.postgres import find_program
from tests.harness import database_url

SERVICE = yaml.safe_load((BASE_DIR / "compose.production.yaml").read_text())["services"]["backup"]
NAME = "backups_test"  # of a database beside that of the tests
Ask = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture
def environment(transactional_db: None) -> Iterator[dict[str, str]]:
    """The environment of the service `backup`, for a database with one table."""
    told = connection.get_connection_params()
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
    environment = {
        **os.environ,
        "PATH": f"{find_program().parent}:{os.environ['PATH']}",
        "PGDATABASE": NAME,
        **{name: str(told[key]) for name, key in names.items()},
    }
    run("createdb", NAME, environment=environment)
    yield environment
    for name in (NAME, "restored"):
        run("dropdb", "--if-exists", "--force", name, environment=environment)


@pytest.fixture
def ask(environment: dict[str, str]) -> Ask:
    """Return a function that asks that database."""

    def answer(query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(f"{database_url().rpartition('/')[0]}/{NAME}") as own:
            found = own.execute(query)
            return found.fetchall() if found.description else []

    answer("CREATE TABLE report (title text PRIMARY KEY)")
    answer("INSERT INTO report VALUES ('Ants')")
    return answer


def run(*command: str, environment: dict[str, str]) -> None:
    """Run one of PostgreSQL's programs."""
    subprocess.run(command, env=environment, check=True)


def in_place_of_the_volume(folder: Path, script: str) -> list[str]:
    """Return the command that a container of the service runs for this, with this folder as its volume."""
    return ["sh", "-c", script.replace("$$", "$").replace("/backups", str(folder))]


def back_up(folder: Path, environment: dict[str, str]) -> int:
    """Run what the service runs, up to where it sleeps; return 0 when it sleeps until tomorrow."""
    shell, option, script = SERVICE["command"]
    assert (shell, option) == ("sh", "-c")
    assert "sleep 86400" in script
    assert "sleep 60" in script
    script = script.replace("sleep 86400", "exit 0").replace("sleep 60", "exit 1")
    return subprocess.run(in_place_of_the_volume(folder, script), env=environment).returncode


def is_healthy(folder: Path) -> bool:
    """Return what the container's health check finds."""
    kind, check = SERVICE["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    return subprocess.run(in_place_of_the_volume(folder, check)).returncode == 0


def make(file: Path, days: int) -> Path:
    """Make a file of that age."""
    then = time.time() - days * 24 * 3600
    file.touch()
    os.utime(file, (then, then))
    return file


def restore(dump: Path, environment: dict[str, str]) -> None:
    """Do what the page says, with the database of this test as `app`."""
    page = (BASE_DIR / "docs" / "backups.md").read_text().partition("## Restore one")[2]
    commands = re.findall(r"^compose exec backup (.+)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["createdb", "pg_restore", "dropdb", "psql"]
    for command in commands:
        words = shlex.split(command.replace("/backups/NAME.dump", str(dump)))
        run(*(re.sub(r"\bapp$", NAME, word) for word in words), environment=environment)


@pytest.fixture
def dump(tmp_path: Path, environment: dict[str, str], ask: Ask) -> Path:
    """What the service has written."""
    assert back_up(tmp_path, environment) == 0
    (written,) = tmp_path.glob("*.dump")
    return written


def test_a_backup_brings_back_what_was_lost(dump: Path, environment: dict[str, str], ask: Ask) -> None:
    """Also past a migration: the table that came later is gone, and keeps nothing from being restored."""
    ask("CREATE TABLE later (title text REFERENCES report)")
    ask("INSERT INTO report VALUES ('Bees')")
    restore(dump, environment)
    assert ask("SELECT title FROM report") == [("Ants",)]
    assert ask("SELECT to_regclass('later')") == [(None,)]


def test_a_dump_that_is_cut_short_changes_nothing(dump: Path, environment: dict[str, str], ask: Ask) -> None:
    dump.write_bytes(dump.read_bytes()[:-200])
    with pytest.raises(subprocess.CalledProcessError):
        restore(dump, environment)
    assert ask("SELECT title FROM report") == [("Ants",)]


def test_old_dumps_go_when_there_is_a_new_one(tmp_path: Path, environment: dict[str, str]) -> None:
    old, kept = make(tmp_path / "old.dump", 15), make(tmp_path / "before-the-change.kept", 15)
    young = make(tmp_path / "young.dump", 13)
    assert back_up(tmp_path, environment | {"PGDATABASE": "nowhere"}) == 1
    assert old.exists()
    assert not is_healthy(tmp_path)
    assert back_up(tmp_path, environment) == 0
    assert not old.exists()
    assert young.exists()
    assert kept.exists()
    assert is_healthy(tmp_path)
