"""The table of dead letters: tasks that could not run, and all that is needed to send them again."""

from django.db import models

LONGEST_NAME = 255  # characters
LONGEST_ERROR = 1000
REDACTED = "redacted"  # stands in `args` and `kwargs` of tasks whose arguments must not be kept


class Reason(models.TextChoices):
    """Why the task could not run, or not to its end."""

    FAILED = "failed", "failed for good"
    TIME_LIMIT = "time_limit", "time limit exceeded"
    WORKER_LOST = "worker_lost", "process died"
    UNKNOWN_TASK = "unknown_task", "unknown task name"
    WRONG_SIGNATURE = "wrong_signature", "arguments do not fit"
    UNDECODABLE = "undecodable", "unreadable message"
    REJECTED = "rejected", "rejected by the task"
    DELIVERY_LIMIT = "delivery_limit", "delivered too often"


class State(models.TextChoices):
    """What became of a dead letter."""

    DEAD = "dead", "dead"
    REQUEUEING = "requeueing", "being requeued"
    REQUEUED = "requeued", "requeued"


class DeadLetter(models.Model):
    """A message that a worker gave up. One row for each task id, however often that failed."""

    task_id = models.CharField("task id", max_length=LONGEST_NAME, unique=True)
    task = models.CharField(max_length=LONGEST_NAME, db_index=True, blank=True)
    args = models.TextField("arguments", blank=True, help_text="For people: JSON, cut when it is long.")
    kwargs = models.TextField("keyword arguments", blank=True)
    reason = models.CharField(max_length=32, choices=Reason)
    error = models.CharField(max_length=LONGEST_ERROR, blank=True)
    traceback = models.TextField(blank=True)
    worker = models.CharField(max_length=LONGEST_NAME, blank=True)

    queue = models.CharField(
        max_length=LONGEST_NAME, blank=True, help_text="Where it came from and is requeued to."
    )
    exchange = models.CharField(max_length=LONGEST_NAME, blank=True)
    routing_key = models.CharField("routing key", max_length=LONGEST_NAME, blank=True)
    priority = models.PositiveSmallIntegerField(null=True, blank=True)
    # JSON as text: PostgreSQL's own JSON refuses NUL and half a surrogate pair, which others may send.
    headers = models.TextField(default="{}")
    body = models.TextField(blank=True, help_text="As it was on the wire.")
    body_encoding = models.CharField(max_length=8, default="utf-8", help_text="utf-8 or base64.")
    content_type = models.CharField(max_length=LONGEST_NAME, blank=True)
    content_encoding = models.CharField(max_length=LONGEST_NAME, blank=True)
    complete = models.BooleanField(
        default=True, help_text="Otherwise the message was not kept whole, and cannot be requeued."
    )

    deliveries = models.PositiveIntegerField(
        default=1, help_text="How often the broker delivered the message, as far as it counts."
    )
    failures = models.PositiveIntegerField(default=1, help_text="How often it became a dead letter.")
    letters = models.JSONField(default=list, help_text="The letters already counted.")
    sent_at = models.DateTimeField("sent", null=True, blank=True)
    first_failed_at = models.DateTimeField("first failed")
    failed_at = models.DateTimeField("failed", db_index=True)

    state = models.CharField(max_length=16, choices=State, default=State.DEAD)
    requeued_at = models.DateTimeField(
        "requeued", null=True, blank=True, help_text="When that was asked for, then when it was sent."
    )
    requeued_by = models.CharField(max_length=LONGEST_NAME, blank=True)
    requeue_batch = models.UUIDField(null=True, blank=True, db_index=True)
    requeue_error = models.CharField(
        max_length=LONGEST_ERROR, blank=True, help_text="Why the last attempt to requeue it failed."
    )

    class Meta:
        ordering = ("-failed_at", "-pk")
        indexes = [models.Index(fields=["state", "id"], name="deadletter_state")]
        default_permissions = ("view", "delete")  # nobody makes or changes one by hand
        permissions = [("requeue_deadletter", "Can requeue dead letter")]

    def __str__(self) -> str:
        return f"{self.task or 'unknown task'} {self.task_id}"
