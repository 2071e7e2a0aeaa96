"""The Celery application of a reliable project, and the one door through which every task is sent."""

from datetime import UTC, datetime
from typing import Any

import celery
from celery.app.task import Task
from kombu.utils.objects import cached_property
from kombu.utils.uuid import uuid

from reliability import arguments, results
from reliability.conf import enabled, value
from reliability.publication import Publication
from reliability.sending import defer, open_transaction


class Celery(celery.Celery):
    """Celery, with the base task, the worker's consumer and the sending of this app."""

    task_cls = "reliability.task:Task"
    _tasks: dict[str, Task]  # Celery's; unlike `tasks`, looking into it imports nothing

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_defaults(lambda: {"worker_consumer": "reliability.consumer:Consumer"})

    def send_task(  # type: ignore[override]
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        *,
        using: str | None = None,
        send_at_once: bool = False,
        **options: Any,
    ) -> Any:
        """Send a task: `delay`, `apply_async`, groups, chains, chords, links and beat all end here.

        Inside `atomic()` the message leaves after the commit, and never after a rollback; the result has
        its final id at once. `using` names the database whose transaction counts, by default the router's
        for this app's models. `send_at_once=True` sends now, whatever the transaction does.

        Raises ArgumentError for an argument that JSON would change, TaskNotSent or TaskMaybeSent when the
        broker does not take the message; inside a transaction the last two leave the commit.
        """
        given = {"countdown": countdown, "eta": eta, "task_id": task_id or uuid()}
        options |= {option: value for option, value in given.items() if value is not None}
        publication = Publication(self, name, args, kwargs, options)
        if enabled("check_arguments"):
            arguments.check(publication)
        if enabled("send_after_commit") and not send_at_once and (connection := open_transaction(using)):
            return defer(publication, connection)
        return publication.publish()

    def send_now(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send a task as Celery does, with the time in its headers: Celery's messages do not tell it.

        Arguments of a redacted task show in no log and no event.
        """
        if name in value("redact"):
            options = options | {"argsrepr": "(redacted)", "kwargsrepr": "{redacted}"}
        headers = {"sent_at": datetime.now(UTC).isoformat()} | (options.get("headers") or {})
        return super().send_task(name, args, kwargs, **options | {"headers": headers})

    @cached_property
    def AsyncResult(self) -> Any:
        """The class of results: it refuses to wait for a task that waits for the transaction."""
        return self.subclass_with_self(results.AsyncResult)

    @cached_property
    def ResultSet(self) -> Any:
        """The same for sets of results."""
        return self.subclass_with_self(results.ResultSet)

    @cached_property
    def GroupResult(self) -> Any:
        """The same for groups."""
        return self.subclass_with_self(results.GroupResult)
