"""The broker is away while a task is sent: the sender learns it soon, and learns what it may rely on."""

import json
from urllib.parse import urlsplit

import pytest

from dev.processes import free_port
from faults import effects
from faults.sending import Sent
from faults.servers import frozen, vanished_host
from faults.world import World

pytestmark = pytest.mark.promise("publish_errors")
BOUND = 7  # seconds until the sender has its error, retries included
GONE = f"redis://127.0.0.1:{free_port()}/0"  # a result backend


def outcome(world: World, sent: Sent, error: str, bound: float = BOUND) -> None:
    """Promise this error within `bound` seconds; the broker is back, and the next task runs."""
    world.seen = f"{sent.error or 'no error'} after {sent.seconds:.1f} s"
    if sent.error == "hangs":
        world.start_sender()
    world.start_worker()
    world.send()
    world.everything_runs()
    world.promise(sent.error == error and sent.seconds < bound, str(sent))
    world.promise(sent.id, "the error does not name the task")
    world.promise(("may have been sent" in sent.text) == (error == "TaskMaybeSent"), sent.text)
    world.promise(error == "TaskMaybeSent" or not effects.events(sent.key), f"{sent.text}, and yet it ran")


def test_sending_to_a_broker_that_is_gone_fails_soon(world: World) -> None:
    """A task is sent while the broker is gone."""
    world.broker.kill()
    sent = world.try_to_send()
    world.broker.start()
    outcome(world, sent, "TaskNotSent")


def test_sending_to_a_frozen_broker_fails_soon(world: World) -> None:
    """A task is sent over a new connection while the broker is frozen."""
    with frozen(world.broker.server):
        sent = world.try_to_send()
    outcome(world, sent, "TaskNotSent")


def test_sending_over_the_connection_of_a_killed_broker_fails_soon(world: World) -> None:
    """A task is sent over a connection whose broker was killed."""
    world.send()
    world.broker.kill()
    sent = world.try_to_send()
    world.broker.start()
    outcome(world, sent, "TaskNotSent")


def test_sending_over_the_connection_of_a_frozen_broker_fails_soon(world: World) -> None:
    """A task is sent over a connection whose broker is frozen."""
    world.send()
    with frozen(world.broker.server):
        sent = world.try_to_send()
    outcome(world, sent, "TaskMaybeSent")


def test_sending_much_over_the_connection_of_a_frozen_broker_fails_soon(world: World) -> None:
    """A task of 16 MB is sent over a connection whose broker is frozen."""
    world.send()
    with frozen(world.broker.server):
        sent = world.try_to_send("carry", load="x" * (16 << 20))  # more than the system keeps for a socket
    outcome(world, sent, "TaskMaybeSent")


def test_sending_to_a_vanished_host_fails_soon(world: World) -> None:
    """A task is sent while the broker's host is gone: no answer, no refusal."""
    with vanished_host() as port:
        url = urlsplit(world.broker.url)
        world.start_sender(
            {"BROKER_URL": url._replace(netloc=f"{url.netloc.rpartition(':')[0]}:{port}").geturl()}
        )
        sent = world.try_to_send()
    world.start_sender()
    outcome(world, sent, "TaskNotSent", bound=3)


def test_a_dead_result_backend_does_not_stop_sending(world: World) -> None:
    """A task is sent while the result backend is gone."""
    send_with_backend(world, GONE)


def test_a_dead_result_backend_delays_no_sender_for_long(world: World) -> None:
    """A task whose result is wanted is sent while the result backend is gone."""
    send_with_backend(world, GONE, ignore_result=False)


def test_a_frozen_result_backend_delays_no_sender_for_long(world: World) -> None:
    """A task whose result is wanted is sent while the result backend is frozen."""
    with frozen(world.cache):
        send_with_backend(world, world.cache.urls["CACHE_URL"], ignore_result=False)


def test_a_vanished_result_backend_delays_no_sender_for_long(world: World) -> None:
    """A task whose result is wanted is sent while the result backend's host is gone."""
    with vanished_host() as port:
        send_with_backend(world, f"redis://127.0.0.1:{port}/0", ignore_result=False)


def send_with_backend(world: World, backend: str, **options: bool) -> None:
    """Promise that sending takes a second at most, and no error where the result is not wanted."""
    world.start_sender({"FAULTS_SETTINGS": json.dumps({"result_backend": backend})})
    world.try_to_send(options={"ignore_result": True})  # a process takes longer for its first one
    sent = world.try_to_send(options=options)
    assert sent.error or not options, "the backend answered, or nobody asked it"
    world.seen = f"{sent.error or 'no error'} after {sent.seconds:.1f} s"
    world.start_sender()
    world.start_worker()
    world.everything_runs()
    world.promise(sent.seconds < 1, str(sent))
    world.promise(options or not sent.error, str(sent))
