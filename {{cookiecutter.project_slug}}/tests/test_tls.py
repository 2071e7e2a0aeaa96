"""TLS to the broker and to PostgreSQL, with real certificates."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
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
OPTIONS = "sslmode=verify-full&sslrootcert={file}&gssencmode=disable"
DATABASE_URL = "postgres://app:secret@localhost:{port}/app?" + OPTIONS
# The variable that holds the URL, the URL, and code that speaks to it.
TARGETS = {
    "broker": ("BROKER_URL", BROKER_URL, "from config.celery import app; app.send_task('anything')"),
    "database": (
        "DATABASE_URL",
        DATABASE_URL,
        "import django; django.setup(); from django.db import connection; connection.connect()",
    ),
}
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")  # of PostgreSQL's protocol


class TlsServer:
    """Notes the first words of each client that accepts its certificate.

    A client of PostgreSQL asks in the clear whether TLS is spoken; this server says yes.
    """

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.heard: list[bytes] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.socket = socket.create_server(("127.0.0.1", 0))
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
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(PATIENCE)
                if client.recv(8, socket.MSG_PEEK) == SSL_REQUEST:
                    client.recv(8)
                    client.sendall(b"S")
                with self.context.wrap_socket(client, server_side=True) as encrypted:
                    self.heard.append(encrypted.recv(64))


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


def speak(target: str, server: TlsServer, folder: Path) -> str:
    """Speak to the server from a process that trusts AUTHORITY; return the errors that it printed."""
    trusted = folder / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(trusted))
    variable, url, code = TARGETS[target]
    url = url.format(port=server.port, file=trusted)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=BASE_DIR,
        env={**os.environ, "SSL_CERT_FILE": str(trusted), variable: url},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stderr


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("server", ["right"], indirect=True)
def test_a_server_with_the_right_certificate_is_spoken_to(
    server: TlsServer, target: str, tmp_path: Path
) -> None:
    speak(target, server, tmp_path)
    assert any(server.heard)


@pytest.mark.parametrize(
    ("target", "server", "refusal"),
    [
        ("broker", "of an unknown authority", "certificate verify failed"),
        ("broker", "for another name", "certificate verify failed"),
        ("database", "of an unknown authority", "certificate verify failed"),
        ("database", "for another name", "does not match host name"),
    ],
    indirect=["server"],
)
def test_a_server_with_a_wrong_certificate_is_refused(
    server: TlsServer, target: str, refusal: str, tmp_path: Path
) -> None:
    """Not one byte is sent to it: the first would be the password."""
    assert refusal in speak(target, server, tmp_path)
    assert not any(server.heard)
