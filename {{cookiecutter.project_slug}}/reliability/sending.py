"""What is sent inside a transaction leaves after its commit, and never after a rollback."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from numbers import Real
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import AppRegistryNotReady
from django.db import DEFAULT_DB_ALIAS, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from kombu import Connection, serialization

from reliability import commits
from reliability.publication import EMBEDDED, Publication

if TYPE_CHECKING:
    from reliability.application import Celery

_at_once: ContextVar[bool] = ContextVar("at_once", default=False)


@contextmanager
def at_once() -> Iterator[None]:
    """Send everything in this block now, inside a transaction too."""
    token = _at_once.set(True)
    try:
        yield
    finally:
        _at_once.reset(token)


def open_transaction(using: str | None) -> BaseDatabaseWrapper | None:
    """Return the connection whose transaction a task sent now belongs to; None outside of one."""
    if _at_once.get():
        return None
    connection = transaction.get_connection(using or _default_database())
    return connection if connection.in_atomic_block or _by_hand(connection) else None


def _by_hand(connection: BaseDatabaseWrapper) -> bool:
    """Return whether autocommit is off, and not by `atomic()`: then `connection.commit()` commits."""
    if connection.in_atomic_block:
        return not connection.commit_on_exit
    # `get_autocommit()` would connect; without a connection there is no transaction.
    return connection.connection is not None and not connection.autocommit


def _default_database() -> str:
    """Return the database that this app's model is written to."""
    try:
        return router.db_for_write(apps.get_model("reliability", "DeadLetter"))
    except (LookupError, AppRegistryNotReady):
        return DEFAULT_DB_ALIAS


def defer(publication: Publication, connection: BaseDatabaseWrapper) -> Any:
    """Leave the task to the connection's next commit, and return its result.

    Everything is settled here that the message would otherwise take from the moment of the commit.
    """
    publication.args, publication.kwargs = as_received(publication)
    publication.asked, publication.options = publication.options, _embedded_as_received(publication)
    _settle_times(publication.app, publication.options)
    _settle_parent(publication.app, publication.options)
    _return_loans(publication)
    result = result_of(publication)
    publication.options["add_to_parent"] = False
    commits.watch(connection)
    publication.by_hand = _by_hand(connection)
    if publication.by_hand:  # Django's on_commit refuses these
        hooks: list[Any] = connection.run_on_commit
        hooks.append((set(connection.savepoint_ids), publication, False))
    else:
        connection.on_commit(publication)
    return result


def result_of(publication: Publication) -> Any:
    """Return the result of a task that is sent later, or not at all, as Celery would."""
    app, options, task = publication.app, publication.options, publication.task
    result = (options.get("result_cls") or app.AsyncResult)(publication.id)
    ignored = options.get("ignore_result")
    result.ignored = task.ignore_result if ignored is None and task is not None else ignored
    if options.get("add_to_parent", True) and (parent := app.current_worker_task):
        parent.add_trail(result)
    return result


def as_received(publication: Publication) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments as the task gets them, so that changing a list after the call changes no message.

    Raises kombu.exceptions.EncodeError or TypeError as sending would.
    """
    args, kwargs = publication.args or (), publication.kwargs or {}
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        raise TypeError("task args must be a list or tuple, task keyword arguments must be a mapping")
    args, kwargs = _serialized_and_back((args, kwargs), publication.serializer)
    return tuple(args), kwargs


def _embedded_as_received(publication: Publication) -> dict[str, Any]:
    """Return the options, with links and chains as the worker gets them."""
    options = publication.options
    embedded = {option: options[option] for option in EMBEDDED if options.get(option)}
    return options | (_serialized_and_back(embedded, publication.serializer) if embedded else {})


def _serialized_and_back(value: Any, serializer: str) -> Any:
    kind, encoding, body = serialization.dumps(value, serializer)
    return serialization.loads(body, kind, encoding, accept={kind})


def _settle_times(app: "Celery", options: dict[str, Any]) -> None:
    """Count seconds from the call: `countdown=60` is what the caller meant by a minute from now."""
    if countdown := options.pop("countdown", None):
        options["eta"] = app.now() + timedelta(seconds=countdown)
    if isinstance(options.get("expires"), Real):
        options["expires"] = app.now() + timedelta(seconds=float(options["expires"]))


def _settle_parent(app: "Celery", options: dict[str, Any]) -> None:
    """Note which task sends this one, as Celery would."""
    if parent := app.current_worker_task:
        options["root_id"] = options.get("root_id") or parent.request.root_id or parent.request.id
        options["parent_id"] = options.get("parent_id") or parent.request.id
        if app.conf.task_inherit_parent_priority:
            options.setdefault("priority", (parent.request.delivery_info or {}).get("priority"))


def _return_loans(publication: Publication) -> None:
    """Keep no producer or connection: they are lent for the call. One to another broker is copied."""
    options = publication.options
    pool: Any = publication.app.pool
    producer = options.pop("producer", None) or options.pop("publisher", None)
    connection = options.pop("connection", None) or (producer and producer.connection)
    if connection and _url(connection) != _url(pool.connection):
        publication.connection = options["connection"] = connection.clone()


def _url(connection: Connection) -> str:
    return connection.as_uri(include_password=True)
