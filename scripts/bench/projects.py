"""Generated projects to measure, one for each broker, made when the first section needs it."""

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.page import ROOT

BROKERS = ("redis", "rabbitmq")


class Projects(dict):
    """The folder of each broker's project: `projects["redis"]` is generated and installed once."""

    def __init__(self, folder):
        self.folder = folder

    def __missing__(self, broker):
        self[broker] = generate(self.folder / broker, f"broker={broker}")
        subprocess.run(["make", "--silent", "install"], cwd=self[broker], check=True)
        return self[broker]


@contextmanager
def generated_projects():
    """Give Projects, and remove at the end what was made."""
    with tempfile.TemporaryDirectory() as name:
        projects = Projects(Path(name))
        try:
            yield projects
        finally:
            for project in projects.values():
                subprocess.run(["make", "--silent", "clean"], cwd=project, check=True)


def generate(folder, *answers):
    """Generate a project in `folder` and return its own."""
    command = [sys.executable, "-m", "cookiecutter", ROOT, "--no-input", "-o", folder, *answers]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "acme_shop"


def printed(project, *arguments, servers=False, **variables):
    """Run Python in a project, with servers of its own if wanted; return what it printed, SystemExit when it fails."""
    python = project / ".venv/bin/python"
    command = [*([python, "-m", "dev.throwaway"] if servers else []), python, *arguments]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout
