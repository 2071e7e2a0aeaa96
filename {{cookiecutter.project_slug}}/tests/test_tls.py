"""TLS to the broker, with real certificates."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from dev import BASE_DIR
from tests.harness import PATIENCE

# jinja: if cookiecutter.broker == "redis"
BROKER_URL = "rediss://:secret@localhost:{port}/0"


# jinja: else
BROKER_URL = "amqps://app:secret@localhost:{port}//"


# jinja: endif
class TlsServer:
    """Notes the first words of each client that accepts its certificate."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.heard: list[bytes] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.socket = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        threading.Thread(target=self.listen, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.socket.getsockname()[1])

    def listen(self) -> None:
        """Accept clients until the socket is closed."""
        while True:
            try:
                client, _ = self.socket.accept()
            except ssl.SSLError:
                continue  # the client refused the certificate
            except OSError:
                return
            with client:
                client.settimeout(PATIENCE)
                self.heard.append(client.recv(64))


AUTHORITY, STRANGER = trustme.CA(), trustme.CA()
CERTIFICATES = {
    "right": AUTHORITY.issue_cert("localhost", "127.0.0.1"),  # kombu may ask by either
    "of an unknown authority": STRANGER.issue_cert("localhost", "127.0.0.1"),
    "for another name": AUTHORITY.issue_cert("broker.example.com"),
}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[TlsServer]:
    server = TlsServer(CERTIFICATES[request.param])
    yield server
    server.socket.close()


def publish(server: TlsServer, folder: Path) -> subprocess.CompletedProcess[str]:
    """Send a task from a process that trusts AUTHORITY."""
    trusted = folder / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(trusted))
    return subprocess.run(
        [sys.executable, "-c", "from config.celery import app; app.send_task('anything')"],
        cwd=BASE_DIR,
        env={**os.environ, "SSL_CERT_FILE": str(trusted), "BROKER_URL": BROKER_URL.format(port=server.port)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("server", ["right"], indirect=True)
def test_a_broker_with_the_right_certificate_is_spoken_to(server: TlsServer, tmp_path: Path) -> None:
    publish(server, tmp_path)
    assert any(server.heard)


@pytest.mark.parametrize("server", ["of an unknown authority", "for another name"], indirect=True)
def test_a_broker_with_a_wrong_certificate_is_refused(server: TlsServer, tmp_path: Path) -> None:
    """Not one byte is sent to it: the first would be the password."""
    result = publish(server, tmp_path)
    assert "certificate verify failed" in result.stderr
    assert not any(server.heard)
