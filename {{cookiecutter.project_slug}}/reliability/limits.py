"""Time limits that the deployment can hold, and the queue for the tasks that need longer ones.

A platform grants a worker some time from SIGTERM to SIGKILL. A task that may run for longer begins again
with each deploy. So ordinary workers have a limit that their grace covers, and the workers of the queue
`long` have a longer one: a task whose decorator declares more than the ordinary limit is sent to them.
"""

from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.signals import beat_init, worker_init
from django.core.checks import ERROR, CheckMessage, Error, Warning, register
from kombu import Queue

from reliability.conf import enabled, value
from reliability.registry import loaded_app

LONG = "long"  # the name of the queue
REJECTED = "rejected"  # where RabbitMQ moves what it has delivered too often; nothing of it is run
EXIT = 10  # seconds of a grace that are for giving back what did not finish, and for ending
CONSUMER_TIMEOUT = 1800  # seconds that RabbitMQ waits for an acknowledgement unless the queue says otherwise


def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    """Send a task to the queue `long` when its limit is above the ordinary one. For `task_routes`."""
    if task is None or not value("long_time_limit"):
        return None
    return {"queue": LONG} if (task.time_limit or 0) > task.app.conf.task_time_limit else None


def soft_limit(hard: int) -> int:
    """Return the soft limit that leaves a tenth of the hard one, and a second at least, to tidy up."""
    return hard - max(1, hard // 10)


def complete(task: Any) -> None:
    """Give a task that declares only a hard limit a soft one below it. Before it is bound."""
    if task.time_limit and task.soft_time_limit is None:
        task.soft_time_limit = soft_limit(task.time_limit)


@register
def check_limits(**_: Any) -> list[CheckMessage]:
    """Compare the limits of all tasks with each other, and with what the deployment grants."""
    if not enabled("check_limits"):
        return []
    app = loaded_app()
    return list(_check_settings(app)) or list(_check_tasks(app))


def _check_settings(app: Celery) -> Iterator[CheckMessage]:
    """Yield what is wrong with the limits that all tasks share. The other checks rest on these."""
    ordinary = app.conf.task_time_limit
    if not ordinary or not app.conf.task_soft_time_limit:
        yield Error(
            "task_time_limit or task_soft_time_limit is not set: a task that hangs would never end.",
            hint=f"Set both; the first to the workers' time from SIGTERM to SIGKILL less {EXIT} s.",
            id="reliability.E010",
        )
        return
    if app.conf.worker_soft_shutdown_timeout < ordinary:
        yield Error(
            f"worker_soft_shutdown_timeout is {app.conf.worker_soft_shutdown_timeout} s and task_time_limit "
            f"{ordinary} s: each deploy cuts short what is within its limit.",
            hint="Give both the same number.",
            id="reliability.E011",
        )


def _check_tasks(app: Celery) -> Iterator[CheckMessage]:
    """Yield what is wrong with each task, then what is wrong with the broker's settings for the longest."""
    tasks = sorted(app.tasks.values(), key=lambda task: str(task.name))
    for task in tasks:
        yield from _check_task(app, task)
    longest = max(tasks, key=lambda task: task.time_limit or 0)
    match app.connection_for_write().transport.driver_type:
        case "redis":
            yield from _check_visibility(app, longest, max(tasks, key=_longest_pause))
        case "amqp":
            yield from _check_consumer_timeout(app, longest)


def _check_task(app: Celery, task: Any) -> Iterator[CheckMessage]:
    hard, soft, ordinary = task.time_limit, task.soft_time_limit, app.conf.task_time_limit
    most, of_long, variable = ordinary, "", "STOP_GRACE"
    if (long := value("long_time_limit") or 0) > ordinary:
        most, of_long, variable = long, " of `long`", "LONG_STOP_GRACE"
    if not hard or not soft or not 0 < soft < hard:
        yield Error(
            f"The task {task.name} has time_limit={hard} and soft_time_limit={soft}.",
            hint="It needs both, and the soft one below the hard one.",
            id="reliability.E012",
        )
    elif hard > most:
        yield Error(
            f"The task {task.name} may run for {hard} s, and the workers{of_long} have {most} s to finish "
            "when they are stopped: each deploy makes it begin again.",
            hint=f"Raise their grace to {hard + EXIT} s, in the deployment and in {variable}, or cut the "
            "task into pieces that note how far they came.",
            id="reliability.E013",
        )
    elif hard > ordinary and (queue := queue_of(app, task)) != LONG:
        yield Error(
            f"The task {task.name} may run for {hard} s and goes to the queue {queue}, whose workers have "
            f"{ordinary} s to finish when they are stopped.",
            hint=f"Name no queue: above {ordinary} s a task goes to `{LONG}` by itself.",
            id="reliability.E014",
        )


def _check_visibility(app: Celery, longest: Any, slowest: Any) -> Iterator[CheckMessage]:
    timeout, runs = app.conf.broker_transport_options.get("visibility_timeout", 3600), 2 * longest.time_limit
    if timeout < runs:
        yield Error(
            f"The visibility timeout is {timeout} s, and {longest.name} may run for {longest.time_limit} s: "
            "Redis may have it run twice at the same time.",
            hint=f"Raise it to {runs} s and the longest countdown.",
            id="reliability.E015",
        )
    elif timeout < runs + (pause := _longest_pause(slowest)):
        yield Warning(
            f"The visibility timeout is {timeout} s, and {slowest.name} may wait {pause:g} s for a retry: "
            "Redis may have it run twice.",
            hint=f"Raise it to {runs + pause:g} s: TASK_LONGEST_DELAY to {pause:g}.",
            id="reliability.W016",
        )


def _check_consumer_timeout(app: Celery, longest: Any) -> Iterator[CheckMessage]:
    for queue in app.amqp.queues.values():
        if queue.name == REJECTED:
            continue
        timeout = (queue.queue_arguments or {}).get("x-consumer-timeout", CONSUMER_TIMEOUT * 1000) / 1000
        if timeout <= longest.time_limit:
            yield Error(
                f"RabbitMQ takes a message of the queue {queue.name} back after {timeout:.0f} s, and "
                f"{longest.name} may run for {longest.time_limit} s.",
                hint="Give the queue a larger x-consumer-timeout, in ms; RabbitMQ before 3.12 has only the "
                "server's consumer_timeout.",
                id="reliability.E017",
            )


def queue_of(app: Celery, task: Any) -> str:
    """Return the name of the queue that a plain `.delay()` sends the task to."""
    declared = getattr(task, "queue", None)
    options = {"queue": declared} if declared else {}
    queue = app.amqp.router.route(options, task.name, (), {}, task).get("queue")
    return queue.name if isinstance(queue, Queue) else str(queue)


def _longest_pause(task: Any) -> float:
    """Return for how many seconds a retry of the task waits at the most, as far as its declaration says."""
    if getattr(task, "autoretry_for", ()) and getattr(task, "retry_backoff", False):
        return float(task.retry_backoff_max)
    return float(task.default_retry_delay or 0)


def refuse_to_start(**_: Any) -> None:
    """End a worker or beat whose limits are wrong before it connects: a line for each mistake, exit 1."""
    errors = [found for found in check_limits() if found.level >= ERROR and not found.is_silenced()]
    if errors:
        raise SystemExit("\n".join(f"{error.id}: {error.msg} {error.hint}" for error in errors))


def give_time(sender: Any, **_: Any) -> None:
    """Let a worker of the queue `long` finish when it is stopped, and hold nothing in reserve."""
    if value("long_time_limit") and LONG in sender.app.amqp.queues.consume_from:
        sender.app.conf.worker_soft_shutdown_timeout = value("long_time_limit")
        sender.prefetch_multiplier = 1


def connect() -> None:
    """Look at the limits when a worker or beat starts."""
    worker_init.connect(refuse_to_start)
    worker_init.connect(give_time)
    beat_init.connect(refuse_to_start)
