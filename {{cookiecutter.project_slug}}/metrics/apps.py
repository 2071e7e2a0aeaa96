"""Has each worker and each beat count."""

from django.apps import AppConfig
from prometheus_client import disable_created_metrics


class MetricsConfig(AppConfig):
    """Connects the signals with which Celery says that a worker or a beat starts."""

    name = "metrics"

    def ready(self) -> None:
        disable_created_metrics()  # a second series beside each counter
        from metrics import beat, tasks_run, worker

        for module in (tasks_run, worker, beat):
            module.connect()
