from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("task_id", models.CharField(max_length=255, unique=True, verbose_name="task id")),
                ("task", models.CharField(blank=True, db_index=True, max_length=255)),
                (
                    "args",
                    models.TextField(
                        blank=True,
                        help_text="For people: JSON, cut when it is long.",
                        verbose_name="arguments",
                    ),
                ),
                ("kwargs", models.TextField(blank=True, verbose_name="keyword arguments")),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("failed", "failed for good"),
                            ("time_limit", "time limit exceeded"),
                            ("worker_lost", "process died"),
                            ("unknown_task", "unknown task name"),
                            ("wrong_signature", "arguments do not fit"),
                            ("undecodable", "unreadable message"),
                            ("rejected", "rejected by the task"),
                            ("delivery_limit", "delivered too often"),
                        ],
                        max_length=32,
                    ),
                ),
                ("error", models.CharField(blank=True, max_length=1000)),
                ("traceback", models.TextField(blank=True)),
                ("worker", models.CharField(blank=True, max_length=255)),
                (
                    "queue",
                    models.CharField(
                        blank=True, help_text="Where it came from and is requeued to.", max_length=255
                    ),
                ),
                ("exchange", models.CharField(blank=True, max_length=255)),
                ("routing_key", models.CharField(blank=True, max_length=255, verbose_name="routing key")),
                ("priority", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("headers", models.TextField(default="{}")),
                ("body", models.TextField(blank=True, help_text="As it was on the wire.")),
                (
                    "body_encoding",
                    models.CharField(default="utf-8", help_text="utf-8 or base64.", max_length=8),
                ),
                ("content_type", models.CharField(blank=True, max_length=255)),
                ("content_encoding", models.CharField(blank=True, max_length=255)),
                (
                    "complete",
                    models.BooleanField(
                        default=True,
                        help_text="Otherwise the message was not kept whole, and cannot be requeued.",
                    ),
                ),
                (
                    "deliveries",
                    models.PositiveIntegerField(
                        default=1,
                        help_text="How often the broker delivered the message, as far as it counts.",
                    ),
                ),
                (
                    "failures",
                    models.PositiveIntegerField(default=1, help_text="How often it became a dead letter."),
                ),
                ("letters", models.JSONField(default=list, help_text="The letters already counted.")),
                ("sent_at", models.DateTimeField(blank=True, null=True, verbose_name="sent")),
                ("first_failed_at", models.DateTimeField(verbose_name="first failed")),
                ("failed_at", models.DateTimeField(db_index=True, verbose_name="failed")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("dead", "dead"),
                            ("requeueing", "being requeued"),
                            ("requeued", "requeued"),
                        ],
                        default="dead",
                        max_length=16,
                    ),
                ),
                (
                    "requeued_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="When that was asked for, then when it was sent.",
                        null=True,
                        verbose_name="requeued",
                    ),
                ),
                ("requeued_by", models.CharField(blank=True, max_length=255)),
                ("requeue_batch", models.UUIDField(blank=True, db_index=True, null=True)),
                (
                    "requeue_error",
                    models.CharField(
                        blank=True, help_text="Why the last attempt to requeue it failed.", max_length=1000
                    ),
                ),
            ],
            options={
                "ordering": ("-failed_at", "-pk"),
                "permissions": [("requeue_deadletter", "Can requeue dead letter")],
                "default_permissions": ("view", "delete"),
                "indexes": [models.Index(fields=["state", "id"], name="deadletter_state")],
            },
        ),
    ]
