"""The sections that are measured in generated projects, by programs of their `faults/`."""

import json
import re

from scripts.bench.page import missed, table
from scripts.bench.projects import BROKERS, printed

AIMS = {"redis": 1.0, "rabbitmq": 0.9}  # of Celery's defaults, in tasks per second at the log level WARNING


def figures(project, module, *arguments):
    """Return the figures that a module of `faults/` prints as JSON, beside servers of its own."""
    return json.loads(printed(project, "-m", f"faults.{module}", *arguments, servers=True).splitlines()[-1])


def outcomes(project, *arguments, start, **variables):
    """Return the lines of the fault suite's table that begin like this: [fault, broker, settings, ..., outcome]."""
    shown = printed(project, "-m", "pytest", "-q", *arguments, **variables)
    return [re.split(r"  +", line) for line in shown.splitlines() if line.startswith(start)]


def tasks(projects):
    """Measure how many tasks a worker runs in a second, beside Celery's defaults."""
    rows = []
    for broker in BROKERS:
        for level in ("WARNING", "INFO"):
            speed = figures(projects[broker], "throughput", level, "defaults", "ours")
            speeds = [f"{speed[profile]:.0f}/s" for profile in ("defaults", "ours")]
            aim = f"at least {AIMS[broker]}{missed(speed['ratio'] < AIMS[broker])}" if level == "WARNING" else ""
            rows.append([broker, level, *speeds, f"{speed['ratio']:.2f}", aim])
    return f"""\
No-op tasks, one worker with two processes, all of `reliability/` and `config/celeryconfig.py` on, against Celery's
defaults in a bare project. On RabbitMQ ours has quorum queues and the defaults have classic ones. WARNING is Celery's
own log level; at INFO ours writes JSON, Celery plain text. Medians of rounds that have both; the ratio is the median
of the rounds' ratios. Printed by `faults/throughput.py` of a generated project.

{table(["broker", "log level", "Celery's defaults", "ours", "ratio", "aim"], rows)}
"""


def watching(projects):
    """Measure what health/, metrics/ and status/ take from a worker's speed, and what events would take."""
    watched, times, events = [], [], []
    for broker in BROKERS:
        speed = figures(projects[broker], "throughput", "WARNING", "unwatched", "ours")
        speeds = [f"{speed[profile]:.0f}/s" for profile in ("unwatched", "ours")]
        watched.append([broker, *speeds, f"{speed['ratio']:.2f}", f"at least 0.95{missed(speed['ratio'] < 0.95)}"])
        time = figures(projects[broker], "watching")
        times.append([broker, f"{time['added']:.0f} us", f"{time['all']:.0f} us", f"{time['ratio']:.2f}"])
        speed = figures(projects[broker], "throughput", "WARNING", "unwatched", "events")
        speeds = [f"{speed[profile]:.0f}/s" for profile in ("unwatched", "events")]
        events.append([broker, *speeds, f"{speed['ratio']:.2f}"])
    return f"""\
No-op tasks with and without the apps `health`, `metrics` and `status`, at WARNING (`faults/throughput.py`):

{table(["broker", "without", "with", "ratio", "aim"], watched)}

What these apps take of the CPU time of the worker's main process, which every task passes, and what that leaves of its
speed (`faults/watching.py`):

{table(["broker", "these apps, a task", "all, a task", "leaves"], times)}

The same speeds with the events that Flower and celery-exporter live from, instead of these apps:

{table(["broker", "without", "with events", "ratio"], events)}
"""


def tracing(projects):
    """Measure what OpenTelemetry takes from a worker's speed, with a collector that takes everything."""
    rows = []
    for broker in BROKERS:
        speed = figures(projects[broker], "throughput", "WARNING", "ours", "traced")
        rows.append([broker, *(f"{speed[profile]:.0f}/s" for profile in ("ours", "traced")), f"{speed['ratio']:.2f}"])
    return f"""\
The same no-op tasks with OTEL_EXPORTER_OTLP_ENDPOINT, which is empty by default, and every task in a trace
(`faults/throughput.py`). OTEL_TRACES_SAMPLER keeps fewer.

{table(["broker", "without", "with", "ratio"], rows)}
"""


def exporter(projects):
    """Measure the exporter while a queue is long."""
    rows = []
    for broker in BROKERS:
        cost = figures(projects[broker], "scraping", "1000000")
        times = [f"{cost[what] * 1000:.1f} ms" for what in ("asking", "scrape")]
        rows.append([broker, *times, f"at most 50 ms{missed(cost['asking'] + cost['scrape'] > 0.05)}"])
    return f"""\
What the exporter takes to ask the broker, and to answer a scrape, while 1,000,000 messages wait in a queue
(`faults/scraping.py`; medians of 30):

{table(["broker", "asking", "scrape", "aim for both"], rows)}
"""


def probes(projects):
    """Measure a liveness probe beside `celery inspect ping`."""
    rows = []
    for broker in BROKERS:
        cost = figures(projects[broker], "probing")
        times = [f"{cost[what] * 1000:.0f} ms" for what in ("probe", "probe_cpu", "ping", "ping_cpu")]
        aim = f"at most 20 ms, 1/50{missed(cost['probe'] > 0.02 or cost['ratio'] < 50)}"
        rows.append([broker, *times, f"1/{cost['ratio']:.0f}", aim])
    columns = ["broker", "probe", "its CPU time", "ping", "its CPU time", "ratio of CPU times", "aim"]
    return f"""\
One liveness probe by command (`health/ask.py`) beside `celery inspect ping -d` of the same worker
(`faults/probing.py`):

{table(columns, rows)}
"""


def status(projects):
    """Measure what the server takes for the status page."""
    rows = []
    for workers in ("5", "50"):
        cost = figures(projects["redis"], "status_page", workers)
        aim = f"under 100 ms{missed(cost['milliseconds'] >= 100)}"
        rows.append([workers, f"{cost['milliseconds']:.0f} ms", str(cost["queries"]), aim])
    return f"""\
From a request's arrival to the whole answer, with an hour of samples of each process (`faults/status_page.py`; medians
of 50):

{table(["workers", "server time", "queries of the database", "aim"], rows)}
"""


def outage(projects):
    """Have the broker away for ten minutes."""
    rows = []
    for broker in BROKERS:
        found = outcomes(
            projects[broker], "-n", "3", "faults/test_outages.py", start="The broker is away", OUTAGE="600"
        )
        rows += [[broker, row[-1]] for row in found]
    return f"""\
The broker is killed or frozen, or its host vanishes, for ten minutes, with a probe each 5 s (`OUTAGE=600`,
`faults/test_outages.py`). No probe may fail, and a task must run within 15 s of the broker's return.

{table(["broker", "outcome"], rows)}
"""


def alerts(projects):
    """Have the rules' own tests played to promtool, and note when each alert fires."""
    brokers = {}
    for broker in BROKERS:
        for line in printed(projects[broker], "-m", "faults.delays").splitlines():
            brokers.setdefault(tuple(line.split()), []).append(broker)
    rows = [
        [name, " and ".join(brokers[name, severity, minutes]), severity, minutes]
        for name, severity, minutes in sorted(brokers)
    ]
    return f"""\
With the thresholds of `monitoring/`: minutes from the last healthy figure until the alert fires, played to the rules by
promtool with the input of each alert's own test, which has a figure a minute (`faults/delays.py`). Before it come the
exporter's question (each 5 s) and the scrape (each 15 s), and for a wedged worker the 40 s, for a deaf one the 60 s,
after which it says so; after it the 30 s that Alertmanager gathers. `faults/test_alerts.py` shows that each arrives.

{table(["alert", "broker", "severity", "minutes"], rows)}
"""


def sending(projects):
    """Send while a server is away, with each set of settings."""
    rows = []
    for broker in BROKERS:
        found = outcomes(projects[broker], "-n", "auto", "faults/test_publishing.py", "--full", start="A task ")
        rows += [[*row[:3], row[-1]] for row in found if " after " in row[-1]]
    return f"""\
From the full fault suite (`faults/test_publishing.py`); a sender that "hangs" was given up.

{table(["fault", "broker", "settings", "outcome"], rows)}
"""
