"""When the broker does not take a task, the error says whether the task may run all the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, NamedTuple

from amqp.exceptions import ChannelError, MessageNacked
from celery.app.amqp import _callback_publish_retry  # type: ignore[attr-defined]
from kombu.exceptions import OperationalError

from reliability.conf import enabled

if TYPE_CHECKING:
    from reliability.publication import Publication


class PublishError(OperationalError):
    """The broker did not take a task. `task_id` and `task_name` say which; of many, the first."""

    task_id = ""
    task_name = ""


class TaskNotSent(PublishError):
    """The message did not leave, or the broker refused it: the task does not run."""


class TaskMaybeSent(PublishError):
    """The message left, and no answer came back: the task may run."""


class Server(NamedTuple):
    """What must answer before a task is sent."""

    kind: str  # "broker" or "result backend"
    url: str


class _Attempts:
    """The attempts to publish one message."""

    message_left = False

    def note(self, error: BaseException) -> None:
        """Remember whether the broker may have the message since this attempt."""
        self.message_left |= may_have_left(error)


_attempts: ContextVar[_Attempts | None] = ContextVar("attempts", default=None)


def _note_attempt(error: BaseException, _interval: float) -> None:
    """What kombu calls after an attempt that it repeats."""
    if attempts := _attempts.get():
        attempts.note(error)


@contextmanager
def explained(publication: "Publication") -> Iterator[None]:
    """Turn an error of the broker in this block into TaskNotSent or TaskMaybeSent."""
    if not enabled("publish_errors"):
        yield
        return
    options = publication.options
    options["retry_policy"] = {**(options.get("retry_policy") or {}), "errback": _note_attempt}
    attempts = _Attempts()
    token = _attempts.set(attempts)
    # Celery's own loop for what a finished task sends takes longer, and shows no error but the last.
    loop = _callback_publish_retry.set(False)
    try:
        yield
    except Exception as error:
        connection = publication.app.connection_for_write()
        of_the_broker: tuple[Any, ...] = (
            OperationalError,
            *connection.connection_errors,
            *connection.channel_errors,
        )
        # kombu counts KeyError among them; a queue that nobody knows is one too, and not the broker's fault.
        if not isinstance(error, of_the_broker) or isinstance(error, KeyError):
            raise
        attempts.note(error)
        raise _explanation(publication, error, maybe=attempts.message_left) from error
    finally:
        _attempts.reset(token)
        _callback_publish_retry.reset(loop)


def refuse_to_wait(publication: "Publication", silent: set[Server]) -> None:
    """Raise TaskNotSent when the task needs one of these, which gave another of its commit no answer."""
    for server in _servers(publication) & silent:
        raise _explanation(publication, f"the {server.kind} had just failed to take another", maybe=False)


def silent(publication: "Publication", error: BaseException) -> set[Server]:
    """Return the server that gave no answer, for which the next task would wait in vain too."""
    of_results = "on_task_call" in _functions(error)  # which raises RuntimeError
    if not isinstance(error, OperationalError | RuntimeError if of_results else OperationalError):
        return set()
    if _is_refusal(error):
        return set()
    kind = "result backend" if of_results else "broker"
    return {server for server in _servers(publication) if server.kind == kind}


def _servers(publication: "Publication") -> set[Server]:
    app, task = publication.app, publication.task
    broker = publication.connection or app.connection_for_write()
    found = {Server("broker", broker.as_uri(include_password=True))}
    # Celery subscribes to a result before it sends the task.
    if not publication.options.get("ignore_result", task and task.ignore_result):
        found.add(Server("result backend", str(app.conf.result_backend)))
    return found


def _explanation(publication: "Publication", reason: object, *, maybe: bool) -> PublishError:
    if isinstance(reason, BaseException):
        cause = reason.__cause__ or reason
        reason = f"{type(cause).__name__}: {cause}"
    if maybe:
        explanation: PublishError = TaskMaybeSent(
            f"{publication} may have been sent, and may run: no answer came ({reason})"
        )
    else:
        explanation = TaskNotSent(f"{publication} was not sent, and will not run ({reason})")
    explanation.task_id, explanation.task_name = publication.id, publication.name
    return explanation


def describe(publication: "Publication", error: Exception) -> str:
    """Return the error's text, with the task's name and id."""
    return str(error) if isinstance(error, PublishError) else f"{publication}: {error!r}"


def together(failures: "list[tuple[Publication, Exception]]") -> Exception:
    """Return one error for all of these: the only one, or one that names each."""
    errors = [error for _, error in failures]
    if len(errors) == 1:
        return errors[0]
    kind: type[PublishError] = TaskNotSent
    if any(isinstance(error, TaskMaybeSent) for error in errors):
        kind = TaskMaybeSent
    elif any(isinstance(error, OperationalError) and not isinstance(error, PublishError) for error in errors):
        kind = PublishError  # nobody asked which of the two: explanations are switched off
    combined = kind(f"{len(errors)} tasks of this commit: {'; '.join(describe(*each) for each in failures)}")
    combined.task_id, combined.task_name = failures[0][0].id, failures[0][0].name
    return combined


# What is still before the message itself, when an error comes from inside these functions of amqp and redis.
_BEFORE_THE_MESSAGE = (
    {"connect"},
    {"connect_check_health"},
    {"check_health"},
    {"confirm_select"},
    {"_basic_publish", "drain_events"},
)


def may_have_left(error: BaseException) -> bool:
    """Return whether the broker may have the message after this error; True when that cannot be told."""
    if _is_refusal(error):
        return False
    functions = _functions(error)
    handed_over = functions & {"basic_publish", "basic_publish_confirm"}
    return bool(handed_over) and not any(before <= functions for before in _BEFORE_THE_MESSAGE)


def _functions(error: BaseException) -> set[str]:
    """Return the names of the functions that the error came through."""
    return {frame.f_code.co_name for each in _causes(error) for frame, _ in walk_tb(each.__traceback__)}


def _is_refusal(error: BaseException) -> bool:
    """Return whether the broker answered, with a no."""
    return any(
        isinstance(each, ChannelError | MessageNacked)
        or "ResponseError" in {kind.__name__ for kind in type(each).__mro__}  # redis may not be installed
        for each in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give the error and what it was raised from."""
    cause: BaseException | None = error
    while cause:
        yield cause
        cause = cause.__cause__
