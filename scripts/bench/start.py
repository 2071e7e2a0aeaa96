"""From the template to the first task: how long generating takes, and `make up` in a new project."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from scripts.bench.page import ROOT, table
from scripts.bench.projects import generate

RUNS = 10
PATIENCE = 300  # seconds
RUN_A_TASK = """
import time
from jobs.models import Report
from jobs.tasks import write_report
report = Report.objects.create(title="First", seconds=0)
write_report.delay(report.pk)
while not Report.objects.filter(pk=report.pk, finished_at__isnull=False):
    time.sleep(0.02)
"""


def start(_projects):
    """Measure both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, ratios = generation(folder)
        cold = first_task(folder, "cold", folder / "caches")
        print(f"make up, empty caches: {cold:.1f} s", flush=True)
        warm = first_task(folder, "warm", folder / "caches")
        print(f"make up, warm caches: {warm:.1f} s", flush=True)
    rows = [
        [f"generating a project, whole process, median of {RUNS}", f"{seconds['ours']:.2f} s", ""],
        ["the same with an empty template and the same questions", f"{seconds['empty']:.2f} s", ""],
        [f"ratio of the two, median of the {RUNS} rounds", f"{ratios['ours']:.2f}", "at most 1.3"],
        ["ratio for the empty template with two hooks that only import json", f"{ratios['hooks']:.2f}", ""],
        [
            "`make up` in a new project to the first finished task, empty pip and uv caches",
            f"{cold:.1f} s",
            "at most 60 s",
        ],
        ["the same with warm caches, and still no virtual environment", f"{warm:.1f} s", "at most 15 s"],
    ]
    return table(["what", "figure", "aim"], rows)


def timed(command):
    """Run a command and return its seconds of wall time."""
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def empty_template(folder, hooks):
    """Make a template of one file with our questions, and with hooks that do nothing if wanted."""
    (folder / "{{cookiecutter.project_slug}}").mkdir(parents=True)
    (folder / "{{cookiecutter.project_slug}}/README.md").write_text("Nothing.\n")
    shutil.copy(ROOT / "cookiecutter.json", folder)
    if hooks:
        (folder / "hooks").mkdir()
        for name in ("pre", "post"):
            (folder / f"hooks/{name}_gen_project.py").write_text("import json\n")
    return folder


def generation(folder):
    """Return the median seconds with an empty template, and for ours and an empty one with hooks the median ratio."""
    templates = {
        "empty": empty_template(folder / "empty", hooks=False),
        "hooks": empty_template(folder / "hooks-only", hooks=True),
        "ours": ROOT,
    }
    rounds = []
    for number in range(RUNS + 1):
        rounds.append(
            {
                name: timed(
                    [sys.executable, "-m", "cookiecutter", template, "--no-input", "-o", folder / f"{name}-{number}"]
                )
                for name, template in templates.items()
            }
        )
        print(" ".join(f"{name} {seconds:.2f} s" for name, seconds in rounds[-1].items()), flush=True)
    rounds = rounds[1:]  # the first one warms the disk cache
    seconds = {name: statistics.median(times[name] for times in rounds) for name in templates}
    ratios = {name: statistics.median(times[name] / times["empty"] for times in rounds) for name in templates}
    return seconds, ratios


def first_task(folder, name, caches):
    """Return the seconds from `make up` in a new project to its first finished task."""
    project = generate(folder / name)
    environment = {**os.environ, "UV_CACHE_DIR": str(caches / "uv"), "PIP_CACHE_DIR": str(caches / "pip")}
    started = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        up = subprocess.Popen(
            ["make", "up"], cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        address = wait_for(lambda: address_in(folder / f"{name}.log"), up, log)
        wait_for(lambda: answers(f"{address}readyz"), up, log)
        subprocess.run(
            [project / ".venv/bin/python", "manage.py", "shell", "-v0", "-c", RUN_A_TASK], cwd=project, check=True
        )
        return time.monotonic() - started
    finally:
        if up.poll() is None:
            os.killpg(up.pid, signal.SIGINT)
            up.wait(60)
        subprocess.run(["make", "--silent", "clean"], cwd=project, check=True)


def wait_for(condition, process, log):
    """Return the first true value of `condition`; SystemExit when the process ends or PATIENCE does."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"`make up` did not come up:\n{Path(log.name).read_text()}")
        time.sleep(0.05)
    return value


def address_in(log):
    """Return the address that `make up` printed, or None."""
    return next((word for word in log.read_text().split() if word.startswith("http://127.0.0.1")), None)


def answers(url):
    """Return whether a page answers with 200."""
    try:
        with urlopen(url, timeout=5) as page:
            return page.status == 200
    except (URLError, TimeoutError):
        return False
