"""Waiting for the result of a task that waits for the transaction would never end: it is refused."""

from typing import Any

from celery import result
from django.db import connections

from reliability.commits import publications


class AsyncResult(result.AsyncResult):
    """A result that is not waited for before its task is sent."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the result. Raises RuntimeError inside the transaction that holds the task back."""
        refuse_to_wait(self)
        return super().get(*args, **kwargs)

    wait = get


class ResultSet(result.ResultSet):
    """The same for many results: each way to wait for them."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for all."""
        refuse_to_wait(self)
        return super().get(*args, **kwargs)

    def join(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for all, one after another."""
        refuse_to_wait(self)
        return super().join(*args, **kwargs)

    def join_native(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for all, as the backend does it best."""
        refuse_to_wait(self)
        return super().join_native(*args, **kwargs)

    def iter_native(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for each, whichever comes first."""
        refuse_to_wait(self)
        return super().iter_native(*args, **kwargs)


class GroupResult(ResultSet, result.GroupResult):
    """The same for a group or the header of a chord."""


def refuse_to_wait(awaited: Any) -> None:
    """Raise RuntimeError when one of these tasks, or one before it, waits for a commit of this thread."""
    waiting = {
        publication.id: publication
        for connection in connections.all(initialized_only=True)
        for publication in publications(connection)
        if not publication.sent
    }
    results, seen = [awaited], set()
    while waiting and results:
        current = results.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if publication := waiting.get(getattr(current, "id", "")):
            raise RuntimeError(
                f"{publication} is sent when this transaction commits: waiting for it here would never end. "
                "Wait after the atomic() block, or send the task with send_at_once=True."
            )
        results += [current.parent, *getattr(current, "results", ())]
