"""What the page shows, and what is wrong: each problem by the name of its alert in docs/runbook.md.

What was not reported is None. The page shows it as unknown, and never as zero.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from celery.app import app_or_default

from reliability.limits import REJECTED
from status.plots import Plot, per_minute, plot
from status.reading import Report, Sample

# Seconds, as in monitoring/alerts.yaml; tests/test_status.py holds them equal.
QUEUE_TOO_OLD = 300
BEAT_SILENT = 60
ENTRY_LATE = 120
PARKED_AFTER = 60  # of a message that the broker has given out, beyond the longest run


class Problem(NamedTuple):
    """What is wrong now."""

    alert: str
    text: str


@dataclass
class Queue:
    """A queue, as the exporter and the workers tell."""

    name: str
    messages: float | None
    age: float | None  # seconds
    workers: int  # that take tasks from it
    length_plot: Plot | None
    age_plot: Plot | None


@dataclass
class Worker:
    """A worker, as it tells itself."""

    name: str
    state: str
    is_well: bool
    is_known: bool  # whether the rest is of now
    up: float | None  # seconds since it started
    queues: list[str]
    running: float | None
    concurrency: float | None
    held: float | None
    longest: float | None  # seconds
    memory: float | None  # bytes
    plot: Plot | None  # of finished tasks a minute


@dataclass
class Entry:
    """An entry of the schedule, as beat tells."""

    name: str
    last_sent: float | None  # seconds since 1970
    late: float | None  # seconds
    failures: float | None


@dataclass
class Summary:
    """The whole page but for the dead letters, which the database knows."""

    queues: list[Queue] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    beat_tick: float | None = None  # seconds
    unknown: dict[str, str] = field(default_factory=dict)  # by part of the page: why nobody can tell
    problems: list[Problem] = field(default_factory=list)

    def cannot_know(self, part: str, alert: str, why: str) -> None:
        """Note that a part of the page has nothing to show, which is a problem in itself."""
        self.unknown[part] = why
        self.problems.append(Problem(alert, why))

    def note(self, alert: str, text: str) -> None:
        """Note what is wrong."""
        self.problems.append(Problem(alert, text))


def summary_of(reports: list[Report]) -> Summary:
    """Return what these reports tell."""
    page = Summary()
    workers = [report for report in reports if report.role == "worker"]
    _add_workers(page, workers)
    exporter, heard = _best(reports, "exporter"), [one for one in workers if not one.is_silent]
    _add_queues(page, exporter, heard)
    if exporter and not exporter.is_silent:
        _look_for_parked_messages(page, exporter, heard)
    _add_schedule(page, _best(reports, "beat"))
    return page


def _best(reports: list[Report], role: str) -> Report | None:
    """Return the report to believe: of several exporters the first by name that sees its broker."""

    def doubt(report: Report) -> tuple[bool, bool, str]:
        return report.is_silent, report.value("celery_source_up", source="broker") == 0, report.name

    return min((report for report in reports if report.role == role), key=doubt, default=None)


def _add_workers(page: Summary, workers: list[Report]) -> None:
    if not workers:
        page.cannot_know("workers", "WorkerDown", "No worker reports.")
    for report in workers:
        state, problem = _state_of(report)
        if problem:
            page.note(problem, f"The worker {report.name} {state}.")
        told = Sample(report.at, {}) if report.is_silent else report
        started = told.value("process_start_time_seconds")
        consuming = [labels["queue"] for labels, taken in told.series("celery_worker_consuming") if taken]
        finished = [
            (sample.at, count)
            for sample in report.past
            if (count := sample.value("celery_tasks_finished_total")) is not None
        ]
        page.workers.append(
            Worker(
                name=report.name,
                state=state,
                is_well=not problem,
                is_known=bool(told.figures),
                up=report.now - started if started else None,
                queues=sorted(consuming),
                running=told.value("celery_worker_running_tasks"),
                concurrency=told.value("celery_worker_concurrency"),
                held=told.value("celery_worker_held_messages"),
                longest=told.highest("celery_task_oldest_run_seconds"),
                memory=told.value("celery_worker_memory_bytes"),
                plot=plot(per_minute(finished), report.now),
            )
        )


def _state_of(report: Report) -> tuple[str, str]:
    """Return what a worker does, and the alert that this is, if any."""
    if report.is_silent:
        return f"is silent since {datetime.fromtimestamp(report.at, UTC):%H:%M:%S} UTC", "WorkerDown"
    if report.value("celery_worker_live") == 0:
        return "hangs", "WorkerWedged"
    if report.value("celery_worker_deaf"):
        return "takes nothing, although messages wait", "WorkerDeaf"
    if not report.figures:
        return "is not known: the cache has forgotten its report", ""
    consuming = [taken for _, taken in report.series("celery_worker_consuming")]
    return ("takes tasks" if consuming and all(consuming) else "takes no tasks, or not from all queues"), ""


def _add_queues(page: Summary, exporter: Report | None, workers: list[Report]) -> None:
    told = exporter if exporter and not exporter.is_silent else None
    if told is None:
        why = "The exporter is silent." if exporter else "No exporter reports; manage.py exporter is one."
        page.cannot_know("queues", "ExporterDown", why)
    elif told.value("celery_source_up", source="broker") == 0:
        page.cannot_know("queues", "BrokerDown", "The broker does not answer the exporter.")
    if told and told.value("celery_source_up", source="database") == 0:
        page.note("DatabaseDown", "PostgreSQL does not answer the exporter.")
    for name in sorted(app_or_default().amqp.queues):
        messages = told.value("celery_queue_messages", queue=name) if told else None
        age = told.value("celery_queue_oldest_message_age_seconds", queue=name) if told else None
        taking = sum(bool(worker.value("celery_worker_consuming", queue=name)) for worker in workers)
        if workers and not taking and name != REJECTED:
            page.note("NoWorkerForQueue", f"No worker takes tasks from {name}.")
        if age and age > QUEUE_TOO_OLD:
            page.note("QueueTooOld", f"What is next in {name} has been waiting for too long.")
        page.queues.append(
            Queue(
                name,
                messages,
                age,
                taking,
                _plot_of(exporter, "celery_queue_messages", name),
                _plot_of(exporter, "celery_queue_oldest_message_age_seconds", name),
            )
        )


def _look_for_parked_messages(page: Summary, exporter: Report, workers: list[Report]) -> None:
    """Compare what Redis has given out with what workers say that they hold, and for how long they run."""
    given_out = exporter.value("celery_unacked_messages") or 0
    held = sum(worker.value("celery_worker_held_messages") or 0 for worker in workers)
    longest = max((worker.highest("celery_task_oldest_run_seconds") or 0 for worker in workers), default=0)
    oldest = exporter.value("celery_oldest_unacked_age_seconds") or 0
    if given_out > held and oldest > longest + PARKED_AFTER:
        page.note("ParkedMessages", f"Held by a worker that is gone: {given_out - held:.0f}.")


def _plot_of(report: Report | None, figure: str, queue: str) -> Plot | None:
    """Return the plot of what exporters told of a queue in the last hour, and tell now."""
    if report is None:
        return None
    told = [(sample.at, sample.value(figure, queue=queue)) for sample in (*report.past, report)]
    return plot([(at, value) for at, value in told if value is not None], report.now)


def _add_schedule(page: Summary, beat: Report | None) -> None:
    if beat is None or beat.is_silent:
        page.cannot_know("schedule", "BeatDown", "Beat is silent." if beat else "No beat reports.")
        return
    page.beat_tick = beat.value("celery_beat_tick_age_seconds")
    if page.beat_tick is not None and page.beat_tick > BEAT_SILENT:
        page.note("BeatSilent", "Beat hangs.")
    for labels, late in sorted(
        beat.series("celery_beat_entry_late_seconds"), key=lambda series: series[0]["entry"]
    ):
        name = labels["entry"]
        if late > ENTRY_LATE:
            page.note("ScheduleEntryLate", f"The entry {name} is late.")
        page.entries.append(
            Entry(
                name,
                beat.value("celery_beat_entry_last_sent_timestamp_seconds", entry=name),
                late,
                beat.value("celery_beat_send_failures_total", entry=name),
            )
        )
