"""What happens to servers and to the network."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dev.processes import Server
from faults.broker import Broker
from faults.processes import processes
from tests.harness import eventually
from tests.relay import full


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stop it in place: the system still accepts connections for it, and nobody answers."""
    assert server.process is not None, f"{server.name} was never started"
    group = server.process.pid
    os.killpg(group, signal.SIGSTOP)
    try:
        eventually(
            lambda: {one.state for one in processes() if one.group == group} == {"T"},
            f"{server.name} is frozen",
        )
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)
    eventually(server.answers, f"{server.name} answers again")


@contextmanager
def away(broker: Broker, how: str) -> Iterator[None]:
    """Have the broker killed or frozen meanwhile; return when it answers again."""
    if how == "frozen":
        with frozen(broker.server):
            yield
        return
    broker.kill()
    try:
        yield
    finally:
        broker.start()


@contextmanager
def vanished_host() -> Iterator[int]:
    """Give a port where packets are lost, as on a host that is gone: nobody accepts, nobody refuses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with full(listener):
            yield listener.getsockname()[1]
