"""`make bench`: measure, and write docs/benchmarks.md. Every figure there was printed by this program."""

import datetime
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
RUNS = 10
PATIENCE = 300  # seconds
AIMS = {"redis": 1.0, "rabbitmq": 0.9}  # of Celery's defaults, in tasks per second at the log level WARNING
RUN_A_TASK = """
import time
from jobs.models import Report
from jobs.tasks import write_report
report = Report.objects.create(title="First", seconds=0)
write_report.delay(report.pk)
while not Report.objects.filter(pk=report.pk, finished_at__isnull=False):
    time.sleep(0.02)
"""


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
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", ROOT, "--no-input", "-o", folder / name], check=True, capture_output=True
    )
    project = folder / name / "acme_shop"
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


def fault_project(folder, broker):
    """Generate and install a project with this broker."""
    command = [sys.executable, "-m", "cookiecutter", ROOT, "--no-input", "-o", folder / broker, f"broker={broker}"]
    subprocess.run(command, check=True, capture_output=True)
    project = folder / broker / "acme_shop"
    subprocess.run(["make", "--silent", "install"], cwd=project, check=True)
    return project


def throughput(project, level, *profiles):
    """Return the tasks per second with each of two profiles, and their ratio, both logging at `level`."""
    python = project / ".venv/bin/python"
    command = [python, "-m", "dev.throwaway", python, "-m", "faults.throughput", level, *profiles]
    shown = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(shown.splitlines()[-1])


def probing(project):
    """Return what a liveness probe of a worker costs, and `celery inspect ping`: medians in seconds."""
    python = project / ".venv/bin/python"
    command = [python, "-m", "dev.throwaway", python, "-m", "faults.probing"]
    shown = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(shown.splitlines()[-1])


def delays(project):
    """Return for each alert its name, its severity, and the minutes until it fires."""
    command = [project / ".venv/bin/python", "-m", "faults.delays"]
    shown = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [tuple(line.split()) for line in shown.splitlines()]


def scraping(project):
    """Return what a scrape of the exporter costs while a million messages wait: medians in seconds."""
    python = project / ".venv/bin/python"
    command = [python, "-m", "dev.throwaway", python, "-m", "faults.scraping", "1000000"]
    shown = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(shown.splitlines()[-1])


def long_outages(project):
    """Return what became of a worker whose broker was away for ten minutes: [how, outcome]."""
    command = [project / ".venv/bin/python", "-m", "pytest", "-n", "2", "-q", "faults/test_outages.py"]
    environment = {**os.environ, "OUTAGE": "600"}
    shown = subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [re.split(r"  +", line)[-1] for line in shown.splitlines() if line.startswith("The broker is away")]


def aim(broker, level, ratio):
    """Return what was aimed at, and whether it was missed; empty where there is no aim."""
    if level != "WARNING":
        return ""
    return f"at least {AIMS[broker]}" + (", missed" if ratio < AIMS[broker] else "")


def outages(project):
    """Return the lines of the fault suite's table on sending while a server is away, with each set of settings."""
    command = [project / ".venv/bin/python", "-m", "pytest", "-n", "auto", "faults/test_publishing.py", "--full", "-q"]
    shown = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [re.split(r"  +", line) for line in shown.splitlines() if line.startswith("A task ")]
    return [(row[0], row[1], row[2], row[-1]) for row in rows if " after " in row[-1]]


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


def machine():
    """Return the machine's size and the versions that matter, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, cookiecutter {version('cookiecutter')}, uv {version('uv')}"
    )


def main():
    """Measure everything and write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, ratios = generation(folder)
        cold = first_task(folder, "cold", folder / "caches")
        print(f"make up, empty caches: {cold:.1f} s", flush=True)
        warm = first_task(folder, "warm", folder / "caches")
        print(f"make up, warm caches: {warm:.1f} s", flush=True)
        speeds, waits, watched, events, probes, scrapes, gaps = [], [], [], [], [], [], []
        alerts = {}  # brokers by alert
        for broker in ("redis", "rabbitmq"):
            project = fault_project(folder, broker)
            speeds += [(broker, level, throughput(project, level, "defaults", "ours")) for level in ("WARNING", "INFO")]
            waits += outages(project)
            watched.append((broker, throughput(project, "WARNING", "unwatched", "ours")))
            events.append((broker, throughput(project, "WARNING", "unwatched", "events")))
            probes.append((broker, probing(project)))
            scrapes.append((broker, scraping(project)))
            for row in delays(project):
                alerts.setdefault(row, []).append(broker)
            gaps += [(broker, outcome) for outcome in long_outages(project)]
            subprocess.run(["make", "--silent", "clean"], cwd=project, check=True)
    speed_rows = "\n".join(
        f"| {broker} | {level} | {speed['defaults']:.0f}/s | {speed['ours']:.0f}/s | {speed['ratio']:.2f} |"
        f" {aim(broker, level, speed['ratio'])} |"
        for broker, level, speed in speeds
    )
    watched_rows = "\n".join(
        f"| {broker} | {speed['unwatched']:.0f}/s | {speed['ours']:.0f}/s | {speed['ratio']:.2f} |"
        f" at least 0.95{', missed' if speed['ratio'] < 0.95 else ''} |"
        for broker, speed in watched
    )
    probe_rows = "\n".join(
        f"| {broker} | {cost['probe'] * 1000:.0f} ms | {cost['probe_cpu'] * 1000:.0f} ms |"
        f" {cost['ping'] * 1000:.0f} ms | {cost['ping_cpu'] * 1000:.0f} ms | 1/{cost['ratio']:.0f} |"
        f" at most 20 ms, 1/50{', missed' if cost['probe'] > 0.02 or cost['ratio'] < 50 else ''} |"
        for broker, cost in probes
    )
    events_rows = "\n".join(
        f"| {broker} | {speed['unwatched']:.0f}/s | {speed['events']:.0f}/s | {speed['ratio']:.2f} |"
        for broker, speed in events
    )
    scrape_rows = "\n".join(
        f"| {broker} | {cost['asking'] * 1000:.1f} ms | {cost['scrape'] * 1000:.1f} ms |"
        f" at most 50 ms{', missed' if cost['asking'] + cost['scrape'] > 0.05 else ''} |"
        for broker, cost in scrapes
    )
    alert_rows = "\n".join(
        f"| {name} | {' and '.join(brokers)} | {severity} | {minutes} |"
        for (name, severity, minutes), brokers in sorted(alerts.items())
    )
    gap_rows = "\n".join(f"| {' | '.join(row)} |" for row in gaps)
    wait_rows = "\n".join(f"| {' | '.join(row)} |" for row in waits)
    page = f"""# Benchmarks

Printed by `make bench` on {datetime.datetime.now(datetime.UTC):%d %B %Y}: {machine()}. The machine was
shared, so trust the ratio, which is paired within one run, more than the seconds.

| what | figure | aim |
|-|-|-|
| generating a project, whole process, median of {RUNS} | {seconds["ours"]:.2f} s | |
| the same with an empty template and the same questions | {seconds["empty"]:.2f} s | |
| ratio of the two, median of the {RUNS} rounds | {ratios["ours"]:.2f} | at most 1.3 |
| ratio for the empty template with two hooks that only import json | {ratios["hooks"]:.2f} | |
| `make up` in a new project to the first finished task, empty pip and uv caches | {cold:.1f} s | at most 60 s |
| the same with warm caches, and still no virtual environment | {warm:.1f} s | at most 15 s |

## Tasks per second

No-op tasks, one worker with two processes, all of `reliability/` and `config/celeryconfig.py` on, against Celery's
defaults in a bare project. On RabbitMQ ours has quorum queues and the defaults have classic ones. WARNING is Celery's
own log level; at INFO ours writes JSON, Celery plain text. Medians of rounds that have both; the ratio is the median
of the rounds' ratios. Printed by `faults/throughput.py` of a generated project.

| broker | log level | Celery's defaults | ours | ratio | aim |
|-|-|-|-|-|-|
{speed_rows}

## What watching costs

The same no-op tasks with and without the apps `health` and `metrics`, at WARNING (`faults/throughput.py`):

| broker | without | with | ratio | aim |
|-|-|-|-|-|
{watched_rows}

The same with the events that Flower and celery-exporter live from, instead of `health` and `metrics`:

| broker | without | with events | ratio |
|-|-|-|-|
{events_rows}

What the exporter takes to ask the broker, and to answer a scrape, while 1,000,000 messages wait in a queue
(`faults/scraping.py`; medians of 30):

| broker | asking | scrape | aim for both |
|-|-|-|-|
{scrape_rows}

One liveness probe by command (`health/ask.py`) beside `celery inspect ping -d` of the same worker
(`faults/probing.py`):

| broker | probe | its CPU time | ping | its CPU time | ratio of CPU times | aim |
|-|-|-|-|-|-|-|
{probe_rows}

The broker is killed, or frozen, for ten minutes, with a probe each 5 s (`OUTAGE=600`, `faults/test_outages.py`); no
probe may fail, and a task must run within 15 s of the broker's return:

| broker | outcome |
|-|-|
{gap_rows}

## From the fault to the alert

With the thresholds of `monitoring/`: minutes from the last healthy figure until the alert fires, played to the rules by
promtool with the input of each alert's own test, which has a figure a minute (`faults/delays.py`). Before it come the
exporter's question (each 5 s) and the scrape (each 15 s), and for a wedged worker the 40 s, for a deaf one the 60 s,
after which it says so; after it the 30 s that Alertmanager gathers. `faults/test_alerts.py` shows that each arrives.

| alert | broker | severity | minutes |
|-|-|-|-|
{alert_rows}

## Sending while the broker or the result backend is away

From the same run of the fault suite (`faults/test_publishing.py`); a sender that "hangs" was given up.

| fault | broker | settings | outcome |
|-|-|-|-|
{wait_rows}
"""
    (ROOT / "docs" / "benchmarks.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
