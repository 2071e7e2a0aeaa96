import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Report",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("title", models.CharField(max_length=200)),
                (
                    "seconds",
                    models.FloatField(
                        default=0.2,
                        help_text="How long the pretended work takes, in seconds.",
                        validators=[
                            django.core.validators.MinValueValidator(0),
                            django.core.validators.MaxValueValidator(3600),
                        ],
                    ),
                ),
                ("requested_at", models.DateTimeField(auto_now_add=True)),
                (
                    "attempts",
                    models.PositiveIntegerField(
                        default=0,
                        editable=False,
                        help_text="How often a worker began it: above 1 after a fault.",
                    ),
                ),
                ("finished_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("text", models.TextField(blank=True, editable=False)),
            ],
            options={
                "ordering": ("-requested_at",),
            },
        ),
    ]
