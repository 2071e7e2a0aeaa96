from django.db import models


class Order(models.Model):
    address = models.CharField(max_length=200, blank=True)
    packing_seconds = models.FloatField(default=0)
    times_begun = models.PositiveIntegerField(default=0)
    packed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self):
        return f"Order {self.pk}"
