"""What somebody does in the bare project, and a look at what became of it. Run there, by its own Python."""

import os
import signal
import time

from celery.app import app_or_default
from django.apps import apps
from django.db import transaction
from orders.models import Order
from orders.tasks import pack, ship

PATIENCE = 60  # seconds; an upper bound against hangs, not an expectation


def eventually(condition):
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        time.sleep(0.1)
    return value


def look(number):
    """Return how often an order was begun, and whether it is packed."""
    order = Order.objects.get(pk=number)
    return {"begun": order.times_begun, "packed": bool(order.packed_at)}


def send(seconds=0):
    """Have an order packed, and return its number."""
    order = Order.objects.create(packing_seconds=seconds)
    pack.delay(order.pk)
    return order.pk


def wait_for_another():
    """Have another order packed: the worker, with its one process, has dealt with all that was sent before."""
    number = send()
    eventually(lambda: look(number)["packed"])


def send_and_roll_back():
    """Have an order packed, in a transaction that rolls back; return its number."""
    order = Order.objects.create()
    with transaction.atomic():
        pack.delay(order.pk)
        transaction.set_rollback(True)
    wait_for_another()
    return order.pk


def fail():
    """Ship an order that has no address, and return the id of the task."""
    sent = ship.delay(Order.objects.create().pk)
    wait_for_another()
    return sent.id


def busy_process():
    """Return the id of the worker's process that runs a task, None where the worker does not say."""
    # The one worker answers at once, unless the machine is busy: Celery gives it a second.
    active = app_or_default().control.inspect(timeout=20, limit=1).active() or {}
    return next((task["worker_pid"] for tasks in active.values() for task in tasks), None)


def kill_while_packing():
    """SIGKILL the process that packs an order, and return its number."""
    number = send(seconds=600)
    eventually(lambda: look(number)["begun"])
    Order.objects.filter(pk=number).update(packing_seconds=0)
    os.kill(eventually(busy_process), signal.SIGKILL)
    wait_for_another()
    return number


def send_what_nobody_knows():
    """Send a task that no code has, by the queue that was there before."""
    return app_or_default().send_task("orders.tasks.forgotten", queue="celery").id


def dead_letters():
    """Return id, reason and error of each."""
    if not apps.is_installed("reliability"):
        return []
    letters = apps.get_model("reliability", "DeadLetter").objects.all()
    return list(letters.values_list("task_id", "reason", "error"))


def messages_in_redis():
    """Return how many tasks Redis has, waiting or taken by a worker."""
    with app_or_default().connection_for_read() as connection:
        client = connection.default_channel.client
        return client.llen("celery") + client.hlen("unacked")
