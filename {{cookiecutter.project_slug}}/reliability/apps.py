"""Switches the promises on when Django starts."""

from django.apps import AppConfig


class ReliabilityConfig(AppConfig):
    """Registers the system checks and connects the signals of the worker."""

    name = "reliability"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Tasks that did not run"

    def ready(self) -> None:
        """Import the modules with checks; connect those that act when a worker starts."""
        from reliability import beat, broker, conf, limits, raw, shutdown, throughput, versions  # noqa: F401

        for module in (beat, broker, limits, raw, shutdown, throughput, versions):
            module.connect()
