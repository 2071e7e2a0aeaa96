"""Has each worker and each beat answer for itself."""

from django.apps import AppConfig


class HealthConfig(AppConfig):
    """Connects the signals with which Celery says that a worker or a beat starts."""

    name = "health"

    def ready(self) -> None:
        from health import beat, worker

        worker.connect()
        beat.connect()
