"""What production does for backups, and what docs/backups.md says to do with one, against a real database."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from django.db import connection

from dev import BASE_DIR
from dev.postgres import find_program
from jobs.models import Report
from tests.harness import PATIENCE, eventually


@pytest.fixture
def environment(transactional_db: None) -> dict[str, str]:
    """The environment of the service `backup`, for the database of the tests."""
    told = connection.get_connection_params()
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
    return {
        **os.environ,
        "PATH": f"{find_program().parent}:{os.environ['PATH']}",
        "PGDATABASE": told["dbname"],
        **{name: str(told[key]) for name, key in names.items()},
    }


def back_up(folder: Path, environment: dict[str, str]) -> Path:
    """Run what the service runs, with this folder as its volume, and return its first dump."""
    service = yaml.safe_load((BASE_DIR / "compose.production.yaml").read_text())["services"]["backup"]
    command = [part.replace("$$", "$").replace("/backups", str(folder)) for part in service["command"]]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return eventually(lambda: next(folder.glob("*.dump"), None), "a dump")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)


def restore(dump: Path, environment: dict[str, str]) -> None:
    """Do what the page says, into the database of the tests."""
    page = (BASE_DIR / "docs" / "backups.md").read_text()
    (command,) = re.findall(r"^compose exec backup (pg_restore .+)$", page, re.MULTILINE)
    command = command.replace("--dbname=app", f"--dbname={environment['PGDATABASE']}")
    command = command.replace("/backups/NAME.dump", str(dump))
    subprocess.run(shlex.split(command), env=environment, check=True)


def titles() -> list[str]:
    """Return what is in the table that the tests damage."""
    return sorted(report.title for report in Report.objects.all())


def test_a_backup_brings_back_what_was_lost(tmp_path: Path, environment: dict[str, str]) -> None:
    Report.objects.create(title="Ants")
    dump = back_up(tmp_path, environment)
    Report.objects.all().delete()
    Report.objects.create(title="Bees")
    restore(dump, environment)
    assert titles() == ["Ants"]


def test_a_dump_that_is_cut_short_changes_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    Report.objects.create(title="Ants")
    dump = back_up(tmp_path, environment)
    Report.objects.create(title="Bees")
    dump.write_bytes(dump.read_bytes()[:-200])
    with pytest.raises(subprocess.CalledProcessError):
        restore(dump, environment)
    assert titles() == ["Ants", "Bees"]
