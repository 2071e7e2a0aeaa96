"""The pulse of a worker's or a beat's main process: when its loop last turned.

It beats with each turn of the event loop, and also while the process waits for its broker: there the loop
stands still, and nothing is wrong with the process. What stops it is what only a restart mends.
"""

import threading
import time

EVERY = 1.0  # seconds between two beats of a healthy loop

_last = time.monotonic()


def beat() -> None:
    """Note that the main thread is getting on. Other threads say nothing about it."""
    global _last
    if threading.current_thread() is threading.main_thread():
        _last = time.monotonic()


def age() -> float:
    """Return the seconds since the last beat, or since this process began."""
    return time.monotonic() - _last
