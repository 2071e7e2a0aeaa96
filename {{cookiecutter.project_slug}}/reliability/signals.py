"""What happens to tasks, told in the worker's main process to whoever counts it. Receivers must be quick.

In the prefork pool Celery's own signals of a task's end are sent in its child processes, which come and go.
"""

from collections.abc import Callable

from celery.utils.log import get_logger

logger = get_logger(__name__)


class Signal:
    """Something that happens. Django's Signal takes several times as long, and some happen to every task."""

    def __init__(self) -> None:
        self.receivers: list[Callable[..., None]] = []

    def connect(self, receiver: Callable[..., None]) -> None:
        """Have this called from now on, with the arguments that are named below."""
        self.receivers.append(receiver)

    def send(self, **arguments: object) -> None:
        """Tell everybody. An error of theirs is logged: it concerns no task."""
        for receiver in self.receivers:
            try:
                receiver(**arguments)
            except Exception:
                logger.exception("%r failed", receiver)


# A pool process, or thread, has begun with a delivery. Argument: `request`, Celery's Request.
started = Signal()

# A delivery has ended. Arguments: `request`; `outcome`, one of OUTCOMES; and
# `seconds` that it ran as its process measured them, None where that process was lost or killed.
finished = Signal()

# RabbitMQ gave up a message because its time was over. Arguments: the task's name `task`, and its `queue`.
expired = Signal()

# A dead letter was sent. Arguments: the task's name `task`, its `queue`, and the `reason`.
kept = Signal()

OUTCOMES = ("succeeded", "retried", "failed", "time_limit", "lost", "rejected", "ignored")
