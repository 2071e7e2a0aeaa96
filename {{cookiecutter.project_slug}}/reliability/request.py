"""One delivery of a task in the worker's main process: a final failure is kept before it is acknowledged."""

import os
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry
from celery.worker import request as celery_request
from celery.worker import state

from reliability import capture, signals
from reliability.conf import enabled, value


class WrongSignatureError(InvalidTaskError):
    """The task of this version does not take the arguments of this message."""


class Request(celery_request.Request):
    """Celery's request; it sees a mismatched signature before the task starts, and keeps what failed."""

    _lost = False  # whether its process was gone when the hard limit came
    _has_letter = False  # whether it was kept
    seconds: float | None = None  # that it ran, as its process measured them

    def __init__(self, message: Any, **options: Any) -> None:
        """Raise WrongSignatureError when the task does not take these arguments.

        InvalidTaskError, its base class, when a header or the arguments have a wrong type.
        """
        try:
            super().__init__(message, **options)
        except KeyError as error:  # which looks like a lost connection to kombu's transport for Redis
            raise InvalidTaskError(f"The header {error} is missing") from error
        self._check_types()
        takes = getattr(self.task, "__header__", None)  # functions have one
        if self.task.typing and takes:
            try:
                takes(*self.args, **self.kwargs)
            except TypeError as error:
                raise WrongSignatureError(f"{self.name} does not take these arguments: {error}") from error

    def __init_subclass__(cls, **options: Any) -> None:
        """Tell of a success, too. Celery makes a subclass for each task, whose `on_success` ignores ours."""
        super().__init_subclass__(**options)
        succeed = cls.on_success

        def on_success(self: Any, failed__retval__runtime: tuple[bool, Any, float], **options: Any) -> None:
            failed, _, seconds = failed__retval__runtime
            self.seconds = seconds
            succeed(self, failed__retval__runtime, **options)
            if not failed:
                self._tell("succeeded")

        made: Any = cls
        made.on_success = on_success

    def _check_types(self) -> None:
        """Raise InvalidTaskError for types that would end the event loop, or cost it a process's slot."""
        if not isinstance(self.args, list | tuple) or not isinstance(self.kwargs, dict):
            raise InvalidTaskError("The arguments are no list and mapping")
        limits: Any = self.time_limits
        if not isinstance(limits, list | tuple) or len(limits) != 2:
            raise InvalidTaskError(f"The header timelimit is no pair: {limits!r}")
        if not all(limit is None or isinstance(limit, int | float) for limit in limits):
            raise InvalidTaskError(f"The header timelimit holds no numbers: {limits!r}")

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Tell that it runs."""
        super().on_accepted(pid, time_accepted)
        signals.started.send(request=self)

    def on_failure(
        self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Keep a failure that is final; put the message back when that is not possible."""
        state.task_ready(self)  # as Celery does first: it runs no more, whatever becomes of its message
        error = _original(exc_info)
        if isinstance(error, TimeLimitExceeded) and self._process_has_ended():
            exc_info = _lost(f"Process {self.worker_pid} ended while it ran the task.")
            error = _original(exc_info)
            self._lost = True
        elif isinstance(error, MemoryError):  # Celery ends the whole worker, and the next one, and the next
            exc_info = _lost(f"The task ran out of memory: {error}")
            error = _original(exc_info)
        reason = self._reason(error)
        if reason and not self._kept(reason, f"{type(error).__name__}: {error}", str(exc_info.traceback)):
            self.reject(requeue=True)
            self._tell(_outcome(error))
            return
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        self._tell(_outcome(error))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Note a limit; not that of a task whose process was lost before it."""
        if not self._lost:
            super().on_timeout(soft, timeout)

    def reject(self, requeue: bool = False) -> None:
        """Keep what would be dropped, then acknowledge it: the broker must not keep it too."""
        if requeue or self.acknowledged or not enabled("dead_letters"):
            super().reject(requeue=requeue)
        elif self._kept("rejected", "The task was rejected"):
            self.acknowledge()
        else:
            super().reject(requeue=True)

    def info(self, safe: bool = False) -> Any:
        """Return what `celery inspect` and Flower are told: no arguments of a redacted task."""
        return super().info(safe=safe or self.name in value("redact"))

    def send_event(self, type: str, **fields: Any) -> None:
        """Send an event of Celery's. A redacted task's result, or error, may repeat its arguments."""
        if self.name in value("redact"):
            fields = {name: fields[name] for name in fields.keys() - {"result", "exception", "traceback"}}
        super().send_event(type, **fields)

    def _tell(self, outcome: str) -> None:
        signals.finished.send(request=self, outcome=outcome, seconds=self.seconds)

    def _process_has_ended(self) -> bool:
        """Return whether the process is gone. Celery may notice that seconds later than a short limit."""
        try:
            ended = os.waitid(os.P_PID, int(self.worker_pid or 0), os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # Celery has noticed, or there is no process
            return self.worker_pid is not None
        return ended is not None

    def _reason(self, error: BaseException) -> str:
        """Return why this failure is final, empty when it is not: then the task comes back."""
        if isinstance(error, Retry | Ignore | Reject | Terminated):
            return ""
        request: Any = self  # the stubs know less than the class has
        if (
            isinstance(error, TimeLimitExceeded)
            and request.task.acks_late
            and not request.task.acks_on_timeout
        ):
            return ""  # its author wants it to be put back
        if isinstance(error, TimeLimitExceeded | SoftTimeLimitExceeded):
            return "time_limit"
        if not isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            return "failed"
        if request._already_cancelled or request._already_revoked or state.should_terminate:
            return ""
        task, retries = request.task, request._context.retries
        if task.retry_on_worker_lost and (task.max_retries is None or retries < task.max_retries):
            return ""
        if task.reject_on_worker_lost and not task.retry_on_worker_lost:
            return ""
        return "worker_lost"

    def _kept(self, reason: str, error: str, traceback: str = "") -> bool:
        if not enabled("dead_letters"):
            return True
        if not self._has_letter:  # Celery rejects some of what has failed: that is no second failure
            worker = self.hostname
            self._has_letter = capture.keep(self.task.app, self.message, reason, error, traceback, worker)
        return self._has_letter


def _original(exc_info: ExceptionInfo) -> BaseException:
    """Return the exception itself, without the text of its traceback that billiard may have put around it."""
    error: Any = exc_info.exception
    original: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return original


def _outcome(error: BaseException) -> str:
    """Return which of signals.OUTCOMES this is."""
    match error:
        case Retry():
            return "retried"
        case Ignore():
            return "ignored"
        case Reject():
            return "rejected"
        case TimeLimitExceeded() | SoftTimeLimitExceeded():
            return "time_limit"
        case WorkerLostError() | Terminated() | SystemExit() | KeyboardInterrupt():
            return "lost"
    return "failed"


def _lost(what: str) -> ExceptionInfo:
    try:
        raise WorkerLostError(what)
    except WorkerLostError:
        return ExceptionInfo()
