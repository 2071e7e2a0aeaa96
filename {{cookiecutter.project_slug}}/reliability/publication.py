"""A task on its way to the broker."""

from contextlib import nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from celery.app.task import Task
from kombu import Connection

from reliability import publishing

if TYPE_CHECKING:
    from reliability.application import Celery
    from reliability.commits import Commit


EMBEDDED = ("link", "link_error", "chain", "chord")  # options that hold other tasks, with their arguments


class Publication:
    """A task to be sent. Deferred, it is the commit hook that sends it."""

    asked: dict[str, Any] | None = None  # the options of the call, when it is deferred
    by_hand = False  # whether its transaction ends with `connection.commit()`
    connection: Connection | None = None  # to another broker, made for this task
    commit: "Commit | None" = None  # the commit that is sending it
    sent = False

    def __init__(self, app: "Celery", name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> None:
        self.app, self.name, self.args, self.kwargs, self.options = app, name, args, kwargs, options
        self.context = copy_context()  # of the call

    @property
    def id(self) -> str:
        """The task's id, the same from the call to the worker."""
        return str(self.options["task_id"])

    @property
    def task(self) -> Task | None:
        """The task itself, None when this process only knows its name."""
        known: Task | None = self.options.get("task_type") or self.app._tasks.get(self.name)
        return known

    @property
    def serializer(self) -> str:
        """The name of what turns the arguments into bytes."""
        chosen = self.options.get("serializer") or getattr(self.task, "serializer", None)
        return str(chosen or self.app.conf.task_serializer)

    def __str__(self) -> str:
        return f"{self.name}[{self.id}]"

    def publish(self) -> Any:
        """Send it now and return its result. Raises TaskNotSent or TaskMaybeSent."""
        with publishing.explained(self), self.connection or nullcontext():
            result = self.app.send_now(self.name, self.args, self.kwargs, self.options)
        self.sent = True
        return result

    def __call__(self) -> None:
        """Send it, once, as Django's commit hook."""
        if self.commit is not None:
            self.commit.publish(self)
        elif not self.sent:
            self.context.run(self.publish)
