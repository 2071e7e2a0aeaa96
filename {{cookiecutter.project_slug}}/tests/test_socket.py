"""systemd holds the socket of web, so that a restart fails no request."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

from dev import BASE_DIR
from tests.harness import PATIENCE

# What systemd does before it becomes the process: the socket is number 3, and the environment says so.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
command = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi"]
os.execv(command[0], command)
"""


def start(listening: socket.socket) -> subprocess.Popen[bytes]:
    """Start web with this socket."""
    return subprocess.Popen(
        [sys.executable, "-c", ACTIVATE, str(listening.fileno())],
        cwd=BASE_DIR,
        env={**os.environ, "PORT": "1"},  # where it could not listen by itself
        pass_fds=[listening.fileno()],
        stderr=subprocess.DEVNULL,
    )


def test_a_request_waits_while_web_restarts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as pool:
        port = listening.getsockname()[1]

        def ask() -> int:
            request = Request(f"http://127.0.0.1:{port}/livez", headers={"Host": "testserver"})
            with urlopen(request, timeout=PATIENCE) as answer:
                return int(answer.status)

        waiting = pool.submit(ask)
        for restarts in (True, True, False):
            web = start(listening)
            try:
                assert waiting.result() == 200  # by this one, or by the one before at its end
                assert ask() == 200
            finally:
                web.terminate()
                waiting = pool.submit(ask if restarts else int)
                assert web.wait(PATIENCE) == 0
