"""What the example tasks work on."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


class Report(models.Model):
    """A report that somebody asked for and that a task writes."""

    title = models.CharField(max_length=200)
    seconds = models.FloatField(
        default=0.2,
        validators=[MinValueValidator(0), MaxValueValidator(3600)],
        help_text="How long the pretended work takes, in seconds.",
    )
    requested_at = models.DateTimeField(auto_now_add=True)
    attempts = models.PositiveIntegerField(
        default=0, editable=False, help_text="How often a worker began it: above 1 after a fault."
    )
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)
    text = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ("-requested_at",)

    def __str__(self) -> str:
        return self.title
