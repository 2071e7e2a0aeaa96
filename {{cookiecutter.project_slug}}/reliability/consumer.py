"""What a worker does with messages that it cannot run: they wait, or become dead letters."""

from collections.abc import Callable
from typing import Any

from celery.signals import task_rejected, task_unknown
from celery.utils.log import get_logger
from celery.worker import consumer as celery_consumer
from celery.worker import state
from kombu.message import Message

from reliability import capture, messages, pulse, reconnecting, redelivery, shutdown, signals, throughput
from reliability.conf import enabled
from reliability.limits import REJECTED
from reliability.request import WrongSignatureError

logger = get_logger(__name__)


class Consumer(celery_consumer.Consumer):
    """Celery's consumer, with a second thought before each message that it would drop."""

    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]
    task_buckets: dict[str, Any]
    task_consumer: Any
    draining = False  # whether the worker was asked to end
    acknowledgements: throughput.Acknowledgements | None = None  # of the connection

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.left: dict[str, Message] = {}  # what a broken connection held, by delivery tag
        self.pauses: dict[Any, Any] = {}  # timers of messages that wait here for another worker, by tag
        self.messages = 0  # how many have come, over all connections

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker, with short pauses."""
        pulse.beat()  # one that accepts, and then breaks off each time, never has us wait
        return super().ensure_connected(reconnecting.patient(conn, self.while_waiting))

    def connection_for_write(self, *args: Any, **options: Any) -> Any:
        """Connect for events, which are kept when they cannot be sent."""
        return reconnecting.hasty(super().connection_for_write(*args, **options))

    def while_waiting(self) -> None:
        """The broker is away: that is no standstill, and no reason not to end when asked to."""
        pulse.beat()
        if self.draining:
            shutdown.end()
            state.maybe_shutdown()

    def connect(self) -> Any:
        """Declare every queue, other workers' too: Celery binds all to RabbitMQ's delayed delivery."""
        connection = super().connect()
        for queue in self.app.amqp.queues.values():
            queue(connection.default_channel).declare()
        return connection

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Note what the connection held before Celery closes it."""
        redelivery.forget(self)
        if enabled("reconnect"):
            self.left |= reconnecting.leave(self.task_consumer)
        if self.draining:  # and not wait for a broker that may never be back
            shutdown.end()
        super().on_connection_error_after_connected(exc)

    def register_with_event_loop(self, hub: Any) -> None:
        """Beat with each turn of the loop, once a second; Celery forgets the timer with the connection."""
        hub.call_repeatedly(pulse.EVERY, pulse.beat)
        super().register_with_event_loop(hub)

    def set_aside(self) -> int:
        """Return how many messages wait here for a newer worker, or for their rate limit."""
        limited = [len(bucket.contents) for bucket in tuple(self.task_buckets.values()) if bucket]
        return sum(limited, len(self.pauses))

    def loop_args(self) -> tuple[Any, ...]:
        """Before the first message of a new connection, see to what the last one held."""
        reconnecting.take_over(self.task_consumer, self.left)
        self.acknowledgements = throughput.together(self)
        return super().loop_args()

    def stop(self) -> None:
        """Acknowledge what has finished, while there is a connection."""
        if self.acknowledgements:
            self.acknowledgements.end()
        super().stop()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        """Return what is called with each message. No message, however malformed, ends the worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Message) -> None:
            self.messages += 1
            if _given_up_by_the_broker(message):
                if queue := messages.expired_in(message):
                    task = messages.header_text(message, "task")
                    signals.expired.send(task=task, queue=queue)
                if queue or not enabled("dead_letters"):
                    message.ack_log_error(logger, self.connection_errors)
                else:
                    self._kept(message, "delivery_limit", "The broker's delivery limit was reached")
                return
            try:
                handle(message)
            except Exception as error:
                lost = isinstance(error, (*self.connection_errors, *self.channel_errors))
                # A KeyError is a lost connection to kombu's transport for Redis; here a field is missing.
                if message.acknowledged or (lost and not isinstance(error, KeyError)):
                    raise
                self.on_decode_error(message, error)

        return on_message

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Let a task that this version does not know wait for a newer worker; then keep it."""
        name, task_id = messages.header_text(message, "task"), messages.header_text(message, "id")
        if name and redelivery.try_again(self, message, f"Unknown task {name}"):
            return
        if not enabled("dead_letters"):
            super().on_unknown_task(body, message, exc)
        elif self._kept(message, "unknown_task", f"No task is named {name!r}"):
            task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Let arguments that this version does not take wait for a newer worker; then keep them."""
        wrong_signature = isinstance(exc, WrongSignatureError)
        if wrong_signature and redelivery.try_again(self, message, str(exc)):
            return
        if not enabled("dead_letters"):
            super().on_invalid_task(body, message, exc)
        elif self._kept(message, "wrong_signature" if wrong_signature else "undecodable", str(exc)):
            task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_message(self, body: Any, message: Message) -> None:
        """Keep a message that is none of Celery's."""
        if not enabled("dead_letters"):
            super().on_unknown_message(body, message)
        elif self._kept(message, "undecodable", "This is no message of Celery's"):
            task_rejected.send(sender=self, message=message, exc=None)

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Keep a message that cannot be read."""
        if not enabled("dead_letters"):
            super().on_decode_error(message, exc)
        else:
            self._kept(message, "undecodable", f"{type(exc).__name__}: {exc}")

    def _kept(self, message: Message, reason: str, error: str) -> bool:
        """Keep the message and acknowledge it; when that is not possible put it back, and return False.

        Celery would log arguments, and fail a second time at what it cannot read.
        """
        if not capture.keep(self.app, message, reason, error, worker=self.hostname):
            message.reject_log_error(logger, self.connection_errors, requeue=True)
            return False
        message.ack_log_error(logger, self.connection_errors)
        return True


def _given_up_by_the_broker(message: Message) -> bool:
    """Return whether RabbitMQ moved the message to the queue `rejected`, where nothing is run."""
    return bool((message.delivery_info or {}).get("routing_key") == REJECTED)
