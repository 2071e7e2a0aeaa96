"""Is this beat alive, and does it send? Answered from what its process knows."""

import time
from typing import Any

from celery.signals import beat_init

from health import systemd
from health.server import Answer, as_json, serve
from reliability import pulse

LIMIT = 40  # seconds between two ticks; beat_max_loop_interval is 5


class Health:
    """One beat's answers."""

    def __init__(self, service: Any) -> None:
        """`service` is Celery's beat.Service. Serves from now on."""
        self.scheduler = service.scheduler
        self.last_sent: float | None = None  # seconds since 1970
        send = self.scheduler.apply_async

        def noted_send(entry: Any, *args: Any, **kwargs: Any) -> Any:
            result = send(entry, *args, **kwargs)
            self.last_sent = time.time()
            return result

        self.scheduler.apply_async = noted_send
        serve("beat", {"/livez": self.livez, "/readyz": self.readyz})
        systemd.ready(lambda: self.livez().status == 200)

    def livez(self) -> Answer:
        """Does it tick, or wait for its broker?"""
        age = pulse.age()
        return as_json(age <= LIMIT, last_tick=round(age, 1), limit=LIMIT, last_sent=self._since_last_sent())

    def readyz(self) -> Answer:
        """Does it tick, and reach the broker when it sends?"""
        connected = bool(self.scheduler.connection.connected)
        return as_json(connected, last_tick=round(pulse.age(), 1), last_sent=self._since_last_sent())

    def _since_last_sent(self) -> float | None:
        return self.last_sent and round(time.time() - self.last_sent, 1)


def watch(sender: Any, **_: Any) -> None:
    """Begin before the first tick."""
    Health(sender)


def connect() -> None:
    """Begin with each beat."""
    beat_init.connect(watch)
