"""Ask a worker or a beat on this machine for a probe: `python -S -E health/ask.py livez 9812`.

For platforms whose probes are commands. It starts neither Django nor Celery, only Python, without even the
installed packages; status 0 means 200 OK. See tests/test_health.py, and faults/probing.py for its cost.
"""

import _socket  # what `socket` is made of, which takes as long to import as Python to start
import sys

TIMEOUT = 5  # seconds; a process that is stopped accepts and never answers


def ask(page: str, port: int) -> bool:
    """Return whether the answer is 200 OK; OSError when there is none."""
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET /{page} HTTP/1.0\r\n\r\n".encode())
    return connection.recv(16).split()[1:2] == [b"200"]


if __name__ == "__main__":
    try:
        sys.exit(not ask(sys.argv[1], int(sys.argv[2])))
    except OSError as error:
        sys.exit(f"No answer from port {sys.argv[2]}: {error}")
