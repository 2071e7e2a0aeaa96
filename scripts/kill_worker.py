"""Send tasks to a generated project, SIGKILL its worker in the middle, and count.

Run by scripts/demo.py with the project's own Python, in the project's folder.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

sys.path.insert(0, str(Path.cwd()))

from dev import LOCAL, throwaway
from dev.processes import free_port

STARTED = float(sys.argv[1])
TASKS, SECONDS_EACH, KILL_AFTER = 40, 0.4, 12  # tasks finished before the kill
PATIENCE = 60  # seconds; what is not finished by then counts as lost
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "config.settings",
    "DEBUG": "false",
    # Short, so that nobody waits an hour for the demo: limits of 3 and 4 s, a visibility timeout of 8 s.
    # The project's own defaults are long and safe, see its config/celeryconfig.py.
    "STOP_GRACE": "13",
    "LONG_STOP_GRACE": "14",
    "TASK_LONGEST_DELAY": "0",
    "LOG_LEVEL": "WARNING",
    "WORKER_CONCURRENCY": "2",
}


def say(text):
    """Print a line of progress with the seconds since the start of the demo."""
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


def wait_for(condition, what):
    """Return once `condition` holds. SystemExit when it does not within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE} s: {what}; the logs are in {LOCAL}")
        time.sleep(0.1)


@contextmanager
def process(name, *command):
    """Run a part of the project, its output in .local/NAME.log, and stop it at the end."""
    with (LOCAL / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


def answer(url):
    """Return the status and text of a page, None while nobody listens or the connection breaks."""
    try:
        with urlopen(url, timeout=20) as page:
            return f"{page.status} {page.read().decode()}"
    except HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError:
        return None


def watch(reports, until):
    """Print how far the work is, until `until(finished)` or PATIENCE."""
    deadline, shown = time.monotonic() + PATIENCE, -1
    while time.monotonic() < deadline:
        finished = reports.filter(finished_at__isnull=False).count()
        if finished // 4 > shown // 4:
            shown = finished
            say(f"{finished:3} of {TASKS} finished  {'#' * finished}")
        if until(finished):
            return
        time.sleep(0.02)


def wait_until_half_done(reports):
    """Return when both processes of the worker have been busy with the same tasks for a while.

    Not between two tasks: there the worker takes the next message, and on Redis one that is killed in that
    very instant loses it. The project's docs/decisions.md says so; this demo shows the half done ones.
    """
    pair, since = [], time.monotonic()
    deadline = since + PATIENCE
    while len(pair) < 2 or time.monotonic() - since < SECONDS_EACH / 4:
        if time.monotonic() > deadline:
            sys.exit("the worker never had two tasks at once: this run shows nothing")
        running = sorted(reports.filter(attempts__gt=0, finished_at=None).values_list("pk", flat=True))
        if running != pair:
            pair, since = running, time.monotonic()
        time.sleep(0.01)


def experiment(web, worker_command):
    """Send, kill, wait; return the rows of the table and how many tasks were lost."""
    import django

    django.setup()
    from config.celery import app
    from jobs.models import Report
    from jobs.tasks import write_report

    with ExitStack() as stack:
        worker = stack.enter_context(process("worker", *worker_command))
        wait_for(lambda: answer(f"{web}/livez"), "web answers")
        timeout = app.conf.broker_transport_options["visibility_timeout"]
        say(f"web, worker and beat are up; for this demo with a visibility timeout of {timeout} s")
        say(f"sending {TASKS} tasks of {SECONDS_EACH} s each")
        for number in range(TASKS):
            report = Report.objects.create(title=f"Report {number}", seconds=SECONDS_EACH)
            write_report.delay(report.pk)
        reports = Report.objects.all()
        watch(reports, until=lambda finished: finished >= KILL_AFTER)
        wait_until_half_done(reports)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        killed = time.monotonic()
    interrupted = list(reports.filter(attempts__gt=0, finished_at=None).values_list("pk", flat=True))
    say(f"SIGKILL to the worker and its children, with {len(interrupted)} tasks half done; starting a successor")
    with process("successor", *worker_command):
        watch(reports, until=lambda finished: finished == TASKS)
        recovery = time.monotonic() - killed
        finished = reports.filter(finished_at__isnull=False).count()
        rows = {
            "sent": TASKS,
            "finished": finished,
            "lost": TASKS - finished,
            "run twice": f"{reports.filter(attempts__gt=1).count()} (half done at the kill: {len(interrupted)})",
            "seconds to recover": f"{recovery:.1f} (from the kill until all was finished)",
            "web /livez": str(answer(f"{web}/livez")),
            "web /readyz": str(answer(f"{web}/readyz")),
        }
    if not interrupted:
        sys.exit("nothing was half done when the worker was killed: this run shows nothing")
    return rows, TASKS - finished


def main():
    """Return 0 if nothing was lost and web and beat are well, else 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    LOCAL.mkdir(exist_ok=True)
    port = free_port(8000)
    servers = throwaway.plan()
    with throwaway.running(servers) as urls, ExitStack() as stack:
        for server in servers.servers:
            say(f"{server.name} on port {server.port}, from {server.source}")
        os.environ.update(SETTINGS, **urls, PORT=str(port), ALLOWED_HOSTS="127.0.0.1")
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True)
        stack.enter_context(process("web", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi"))
        schedule = str(LOCAL / "beat-schedule")
        beat = stack.enter_context(process("beat", "celery", "-A", "config", "beat", "--schedule", schedule))
        rows, lost = experiment(f"http://127.0.0.1:{port}", ["celery", "-A", "config", "worker"])
        rows["beat"] = "running" if beat.poll() is None else f"ended with {beat.returncode}"
        well = beat.poll() is None and rows["web /readyz"].startswith("200")
        say("stopping everything")
    print()
    for name, value in rows.items():
        print(f"  {name:<20} {value}")
    print(f"\n  {'Nothing was lost.' if not lost else f'{lost} tasks were LOST.'}")
    return 0 if well and not lost else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
