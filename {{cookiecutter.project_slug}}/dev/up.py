"""`make up`: servers, migrations, then web, worker, beat and exporter with auto-reload, until Ctrl-C."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
from types import FrameType
from typing import IO

from dotenv import dotenv_values
from honcho.manager import Manager

from dev import BASE_DIR, LOCAL
from dev.processes import MissingProgramError, free_port, stop_leftover
from dev.stack import Stack

SERVERS_ENV = LOCAL / "servers.env"  # config/env.py reads it: manage.py works in another terminal
PYTHON = shlex.quote(sys.executable)
# Each part serves its figures on a port of its own: those of health/server.py, where they are free.
METRICS_PORTS = {"web": 0, "worker": 9812, "beat": 9813, "exporter": 9814}
PARTS = {
    "web": "{python} manage.py runserver --noreload {port}",
    "worker": "{python} -m celery --quiet -A config worker",
    "beat": "{python} -m celery --quiet -A config beat --schedule .local/beat-schedule",
    "exporter": "{python} manage.py exporter",
}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `kill`, a closed terminal


def main() -> int:
    """Run the project. Return 0 when somebody stopped it, 1 when it could not run or broke."""
    os.chdir(BASE_DIR)
    LOCAL.mkdir(exist_ok=True)
    for number in STOP_SIGNALS:
        signal.signal(number, _interrupt)
    with (LOCAL / "up.lock").open("a") as lock:
        if not _locked(lock):
            print("This project is already up, in another terminal.", file=sys.stderr)
            return 1
        try:
            _stop_parts()  # what a killed run left behind; the servers see to their own
            with Stack(LOCAL, {**dotenv_values(".env"), **os.environ}, durable=True) as stack:
                try:
                    return _run(stack)
                finally:
                    _ignore_signals()
                    _stop_parts()  # where honcho did not come to it: a closed terminal, an error
        except (MissingProgramError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
        finally:
            SERVERS_ENV.unlink(missing_ok=True)


def _run(stack: Stack) -> int:
    print(*stack.report(), sep="\n")
    SERVERS_ENV.touch(mode=0o600)
    SERVERS_ENV.write_text("".join(f"{name}={url}\n" for name, url in stack.urls.items()))

    environment = {
        **os.environ,
        **stack.urls,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONUNBUFFERED": "1",
        "DJANGO_RUNSERVER_HIDE_WARNING": "true",  # nobody runs this in production
    }
    if subprocess.run([sys.executable, "-m", "dev.prepare"], env=environment).returncode:
        return 1

    port = free_port(int({**dotenv_values(".env"), **os.environ}.get("PORT") or 8000))
    packages = " ".join(path.parent.name for path in sorted(BASE_DIR.glob("*/__init__.py")))
    manager = Manager()
    for name, command in PARTS.items():
        reloaded = shlex.quote(command.format(python=PYTHON, port=port))
        reloader = f"{PYTHON} -m watchfiles --verbosity warning {reloaded} {packages}"
        manager.add_process(
            name,
            f"echo $$ > .local/{name}.pid; exec {reloader}",
            env={**environment, "METRICS_PORT": str(free_port(METRICS_PORTS[name]))},
        )
    print(f"\n  http://127.0.0.1:{port}/    Ctrl-C stops everything\n", flush=True)
    manager.loop()
    stopped_by_a_person = manager.returncode in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    return 0 if stopped_by_a_person else 1


def _stop_parts() -> None:
    for name in PARTS:
        stop_leftover(LOCAL / f"{name}.pid", sys.executable, signal.SIGTERM, os.killpg)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """From here on everything is being stopped: an impatient second Ctrl-C must not cut that short."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _locked(lock: IO[str]) -> bool:
    """Return whether we now hold the lock; the system releases it when we end, however we end.

    Not flock: honcho's children inherit that one, and would hold it when only this process is killed.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
