"""One beat in a process of its own, that ends between two sends; a schedule of real tasks that expire."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from celery.signals import beat_init, celeryd_init
from django.core.checks import CheckMessage, Error, Warning, register

from reliability import pulse, reconnecting
from reliability.conf import enabled
from reliability.registry import loaded_app

REFUSAL = (
    "This worker was started with -B (--beat), and each such worker sends every entry of the schedule "
    "once more. Start it without, and `celery -A {app} beat` once, as a process of its own."
)
PATIENCE = 8  # seconds from SIGTERM that a send may take: more than its own bound, less than any grace


def refuse_embedded_beat(instance: Any, options: dict[str, Any], **_: Any) -> None:
    """End a worker that would run beat too, before it connects: one line, exit status 1."""
    if options.get("beat") and enabled("refuse_embedded_beat"):
        raise SystemExit(REFUSAL.format(app=instance.app.main))


def have_a_pulse(sender: Any, **_: Any) -> None:
    """Note each tick, and each second of waiting for the broker."""
    scheduler = sender.scheduler
    reconnecting.patient(scheduler.connection, pulse.beat)
    tick = scheduler.tick

    def noted_tick() -> Any:
        pulse.beat()
        return tick()

    scheduler.tick = noted_tick


def end_between_ticks(sender: Any, **_: Any) -> None:
    """Have SIGTERM wait for the end of a tick.

    Celery closes schedule and connection within its signal handler. In the middle of a send that loses the
    task, which the schedule notes as sent; on RabbitMQ it may also wait for ever for a lock of its own.
    """
    tick = sender.scheduler.tick

    def whole_tick() -> Any:
        with postponed(signal.SIGTERM, signal.SIGINT):
            return tick()

    if enabled("drain") and threading.current_thread() is threading.main_thread():
        sender.scheduler.tick = whole_tick


@contextmanager
def postponed(*numbers: signal.Signals) -> Iterator[None]:
    """Deliver a signal at the end; at once when it comes again, as it does after PATIENCE."""
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        if arrived:
            restore()
            signal.raise_signal(number)
        arrived.append(number)
        again = threading.Timer(PATIENCE, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()
    if arrived:
        signal.raise_signal(arrived[0])


def connect() -> None:
    """Look at the options of each worker that starts, and at each beat."""
    celeryd_init.connect(refuse_embedded_beat)
    beat_init.connect(have_a_pulse)
    beat_init.connect(end_between_ticks)


@register
def check_schedule(**_: Any) -> list[CheckMessage]:
    """Look at each entry that the code declares: does its task exist, and does it expire?"""
    if not enabled("check_schedule"):
        return []
    app = loaded_app()
    messages: list[CheckMessage] = []
    for name, entry in sorted(app.conf.beat_schedule.items()):
        fields = dict(entry)
        task = app.tasks.get(fields["task"])
        if task is None:
            messages.append(
                Error(
                    f"The entry {name!r} of beat_schedule names {fields['task']!r}, which is no task.",
                    hint="Tasks are found in the tasks.py of every installed app.",
                    id="reliability.E030",
                )
            )
        elif not fields.get("options", {}).get("expires", task.expires):
            messages.append(
                Warning(
                    f"The entry {name!r} of beat_schedule has no `expires`.",
                    hint="After an outage of the workers every run that was missed is made up, all at once. "
                    "Give it options={'expires': seconds}, at most the time to its next run.",
                    id="reliability.W031",
                )
            )
    return messages
