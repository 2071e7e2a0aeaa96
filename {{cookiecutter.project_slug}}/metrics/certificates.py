"""When the certificates expire that this project's servers show."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from prometheus_client.core import GaugeMetricFamily, Metric

TIMEOUT = 3  # seconds for each server
TLS_PORTS = {"rediss": 6379, "amqps": 5671}


class Certificates:
    """Of broker and cache where their URLs use TLS, and of what CERTIFICATES names."""

    name = "certificates"

    def __init__(self) -> None:
        servers = [server(settings.BROKER_URL), server(str(settings.CACHES["default"]["LOCATION"]))]
        self.servers = [*filter(None, servers), *settings.CERTIFICATES]

    def ask(self) -> Iterator[Metric]:
        """Yield when each expires; 0 for one that is not to be trusted already now."""
        found = GaugeMetricFamily(
            "celery_certificate_expiry_timestamp_seconds",
            "When the certificate expires; 0 when it is not trusted.",
            labels=["server"],
        )
        for name in self.servers:
            try:
                found.add_metric([name], expiry(name))
            except ssl.SSLCertVerificationError:
                found.add_metric([name], 0)
            except OSError:
                continue  # that it is away is not what this is about
        yield found


def server(url: str) -> str:
    """Return host:port of a URL with TLS, empty for one without."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or TLS_PORTS[parts.scheme]}" if parts.scheme in TLS_PORTS else ""


def expiry(name: str) -> float:
    """Return when the certificate of host:port expires, seconds since 1970.

    SSLCertVerificationError when it is not trusted, OSError without answer.
    """
    host, _, port = name.rpartition(":")
    context = ssl.create_default_context()
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            shown = secured.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
