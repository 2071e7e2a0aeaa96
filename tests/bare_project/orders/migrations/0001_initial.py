from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("address", models.CharField(blank=True, max_length=200)),
                ("packing_seconds", models.FloatField(default=0)),
                ("times_begun", models.PositiveIntegerField(default=0)),
                ("packed_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
    ]
