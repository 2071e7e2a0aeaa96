"""What gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from config import env

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

if env.OTEL_EXPORTER_OTLP_ENDPOINT:
    from config import tracing

    tracing.start("web")  # gunicorn imports this after its fork

application = get_wsgi_application()
