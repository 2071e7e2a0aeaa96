import time

from celery import shared_task
from django.db.models import F
from django.utils import timezone

from orders.models import Order


@shared_task
def pack(order_id):
    Order.objects.filter(pk=order_id).update(times_begun=F("times_begun") + 1)
    order = Order.objects.get(pk=order_id)
    time.sleep(order.packing_seconds)
    Order.objects.filter(pk=order_id).update(packed_at=timezone.now())


@shared_task
def ship(order_id):
    order = Order.objects.get(pk=order_id)
    if not order.address:
        raise ValueError(f"{order} has no address")
