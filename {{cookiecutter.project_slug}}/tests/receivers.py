"""What the project sends its errors and traces to: a real server that keeps them, and can be frozen."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent. Frozen, it takes connections and answers none."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of its own."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.bodies: list[bytes] = []
        self.asked = threading.Event()  # whether anybody has ever connected
        self._answers = threading.Event()
        self._answers.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Answer nobody meanwhile."""
        self._answers.clear()
        yield
        self._answers.set()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Read and answer, once it is not frozen."""
        self.asked.set()
        self._answers.wait()
        super().finish_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(
            gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        )
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
