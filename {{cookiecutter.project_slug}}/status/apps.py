"""Has each worker and each beat report; `manage.py exporter` does so itself."""

from django.apps import AppConfig


class StatusConfig(AppConfig):
    """Connects the signals with which Celery says that a worker or a beat starts."""

    name = "status"

    def ready(self) -> None:
        from status import reporting

        reporting.connect()
