"""How the hooks of a commit send their tasks: each that was due is sent, or named in an error."""

import logging
from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from reliability import publishing
from reliability.publication import Publication

logger = logging.getLogger(__name__)


class Commit:
    """The tasks of one commit. Once a server gave no answer, others that need it are not tried, only named.

    So a commit waits no longer for a broker that is away than a single task does; nor for a result backend.
    """

    def __init__(self) -> None:
        self.failures: list[tuple[Publication, Exception]] = []
        self.silent: set[publishing.Server] = set()

    def publish(self, publication: Publication) -> None:
        """Send it; note the error when that fails, so that neither other tasks nor other hooks suffer."""
        publication.commit = None
        try:
            self._send(publication)
        except Exception as error:
            self.failures.append((publication, error))
            logger.error("After the commit: %s", publishing.describe(publication, error))

    def _send(self, publication: Publication) -> None:
        if self.silent:
            publishing.refuse_to_wait(publication, self.silent)
        try:
            publication()
        except Exception as error:
            self.silent |= publishing.silent(publication, error)
            raise

    def raise_failures(self) -> None:
        """Raise one error that names every task that was not sent."""
        if self.failures:
            raise publishing.together(self.failures)


class _Watch:
    """Stands in for a connection's `run_and_clear_commit_hooks` and `commit`."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.run_hooks: Callable[[], None] = connection.run_and_clear_commit_hooks
        self.commit_transaction: Callable[[], None] = connection.commit

    def run_and_clear_commit_hooks(self) -> None:
        """Run Django's hooks. One that raises stops those after it, but no task."""
        due = self._publications()
        commit = Commit()
        for publication in due:
            publication.commit = commit
        try:
            self.run_hooks()
        finally:
            waiting = self._publications()
            for publication in due:
                if publication.commit is commit and publication not in waiting:
                    commit.publish(publication)
        commit.raise_failures()

    def commit(self) -> None:
        """Commit; send what a transaction without `atomic()` holds back. Django would wait for autocommit."""
        self.commit_transaction()
        commit = Commit()
        for publication in self._publications():
            if publication.by_hand:
                commit.publish(publication)
        self.connection.run_on_commit = [
            hook for hook in self.connection.run_on_commit if not getattr(hook[1], "by_hand", False)
        ]
        commit.raise_failures()

    def _publications(self) -> list[Publication]:
        return publications(self.connection)


def publications(connection: BaseDatabaseWrapper) -> list[Publication]:
    """Return the tasks that wait for the commit of this connection."""
    return [hook for _, hook, *_ in connection.run_on_commit if isinstance(hook, Publication)]


def watch(connection: Any) -> None:
    """See to it, from now on, that this connection's commits send their tasks whatever other hooks do."""
    if not isinstance(getattr(connection.commit, "__self__", None), _Watch):
        watcher = _Watch(connection)
        connection.run_and_clear_commit_hooks = watcher.run_and_clear_commit_hooks
        connection.commit = watcher.commit
