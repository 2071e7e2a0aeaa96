"""Start, await and stop server processes on 127.0.0.1."""

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from dev.owner import Owner

START_TIMEOUT = 60  # seconds; generous, a loaded machine is slow
STOP_TIMEOUT = 20  # seconds from the polite signal to SIGKILL

_claims: list[socket.socket] = []  # by free_port, held open


class MissingProgramError(Exception):
    """A server cannot be started here; the text says what to install or set."""


class Server(ABC):
    """One server with its data in a folder. Its URLs are known before it runs.

    A subclass says how it is found, prepared, started and asked whether it answers.
    """

    name: str
    default_port: int
    variables: tuple[str, ...]  # the environment variables that lead to this server
    program: Path
    stop_signal = signal.SIGTERM
    owner: Owner | None = None  # runs under this uid, else under ours

    def __init__(self, folder: Path, port: int, password: str, *, durable: bool) -> None:
        """`durable` off trades safety at a power cut for speed: right for tests."""
        self.folder, self.port, self.password, self.durable = folder, port, password, durable
        self.log = folder / f"{self.name.lower()}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def source(self) -> str:
        """Where the program comes from, for people."""
        return "a wheel in .venv" if "site-packages" in self.program.parts else str(self.program)

    @property
    @abstractmethod
    def urls(self) -> dict[str, str]:
        """A URL for each of `variables`."""

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """The file in which the server keeps its pid."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder and the configuration, where they are missing."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether a client gets an answer."""

    def environment(self) -> Mapping[str, str]:
        """Return the environment of the server."""
        return os.environ

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises RuntimeError, with the end of its log, when it exits or takes more than START_TIMEOUT.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        stop_leftover(self.pid_file, str(self.pid_file.parent), self.stop_signal)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.pid_file.parent,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the one who will stop it in order
                user=self.owner.uid if self.owner else None,
                group=self.owner.gid if self.owner else None,
                extra_groups=[] if self.owner else None,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = self.log.read_text(errors="replace").splitlines()[-15:]
                self.stop()
                raise RuntimeError("\n".join([f"{self.name} did not start. The end of {self.log}:", *lines]))
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server and return when it is gone. Does nothing when it never ran."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port(preferred: int = 0) -> int:
    """Return `preferred` when nobody has it on 127.0.0.1, else a port that the system picks.

    It stays ours until this process ends: another `make up` may ask before our server listens.
    """
    claim = socket.socket(type=socket.SOCK_DGRAM)  # UDP has ports of its own, so the server is not in the way
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(("127.0.0.1", preferred))
            port = int(probe.getsockname()[1])
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            return free_port()
    _claims.append(claim)
    return port


def stop_leftover(
    pid_file: Path, ours: str, stop_signal: signal.Signals, kill: Callable[[int, int], None] = os.kill
) -> None:
    """Stop the process that a killed run left behind, if there is one, and return when it is gone.

    The pid may be somebody else's by now: our process has `ours` in its command line. With
    `os.killpg` as `kill` the signals go to its whole group.
    """
    if not pid_file.exists():
        return
    pid = pid_file.read_text().split()[0]
    deadline = time.monotonic() + STOP_TIMEOUT
    asked = False
    while ours in _arguments(pid):
        with suppress(ProcessLookupError):  # gone since the look
            if time.monotonic() > deadline:
                kill(int(pid), signal.SIGKILL)
            elif not asked:
                kill(int(pid), stop_signal)
                asked = True
        time.sleep(0.05)


def _arguments(pid: str) -> str:
    """Return the command line of a process, empty when it is gone."""
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", pid], capture_output=True, text=True)
    return shown.stdout


def wheel_folder(package: str) -> Path | None:
    """Return where an installed wheel keeps its files, or None. It does not import the package."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
