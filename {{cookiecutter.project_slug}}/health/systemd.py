"""Tell systemd that this process has started, and go on while it is live: `Type=notify`, `WatchdogSec=`."""

import os
import socket
import threading
import time
from collections.abc import Callable


def ready(is_live: Callable[[], bool]) -> None:
    """Say READY=1, then WATCHDOG=1 at a third of the time that systemd allows, whenever `is_live()`.

    Does nothing where systemd has not asked for it.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return
    _say("READY=1")
    microseconds = int(os.environ.get("WATCHDOG_USEC", 0))
    if microseconds:
        pause = microseconds / 3_000_000
        threading.Thread(target=_watchdog, args=(is_live, pause), name="watchdog", daemon=True).start()


def _watchdog(is_live: Callable[[], bool], pause: float) -> None:
    while True:
        if is_live():
            _say("WATCHDOG=1")
        time.sleep(pause)


def _say(state: str) -> None:
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.connect("\0" + address[1:] if address.startswith("@") else address)
        link.sendall(state.encode())
