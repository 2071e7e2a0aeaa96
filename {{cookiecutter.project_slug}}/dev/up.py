"""`make up`: servers, migrations, then web, worker and beat with auto-reload, until Ctrl-C."""

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
from dev.processes import MissingProgramError, free_port
from dev.stack import Stack

SERVERS_ENV = LOCAL / "servers.env"  # config/env.py reads it: manage.py works in another terminal


def main() -> int:
    """Run the project. Return 0 when somebody stopped it, 1 when it could not run or broke."""
    os.chdir(BASE_DIR)
    LOCAL.mkdir(exist_ok=True)
    # A closed terminal and a plain `kill` stop everything as Ctrl-C does.
    signal.signal(signal.SIGHUP, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    with (LOCAL / "up.lock").open("a") as lock:
        if not _locked(lock):
            print("This project is already up, in another terminal.", file=sys.stderr)
            return 1
        try:
            with Stack(LOCAL, {**dotenv_values(".env"), **os.environ}, durable=True) as stack:
                return _run(stack)
        except (MissingProgramError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
        finally:
            SERVERS_ENV.unlink(missing_ok=True)


def _run(stack: Stack) -> int:
    for server in stack.servers:
        taken = f" ({server.default_port} is taken)" if server.port != server.default_port else ""
        print(f"{server.name}: port {server.port}{taken}, from {server.source}")
    for name in stack.given:
        print(f"{name}: as set in the environment or .env")
    SERVERS_ENV.touch(mode=0o600)
    SERVERS_ENV.write_text("".join(f"{name}={url}\n" for name, url in stack.urls.items()))

    environment = {
        **os.environ,
        **stack.urls,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONUNBUFFERED": "1",
    }
    if subprocess.run([sys.executable, "-m", "dev.prepare"], env=environment).returncode:
        return 1

    port = free_port(int(os.environ.get("PORT", "8000")))
    python = shlex.quote(sys.executable)
    packages = " ".join(path.parent.name for path in sorted(BASE_DIR.glob("*/__init__.py")))
    manager = Manager()
    for name, command in {
        "web": f"{python} manage.py runserver --noreload {port}",
        "worker": f"{python} -m celery -A config worker --without-gossip --without-mingle",
        "beat": f"{python} -m celery -A config beat --schedule .local/beat-schedule",
    }.items():
        reload = f"{python} -m watchfiles --filter python --verbosity warning"
        manager.add_process(name, f"exec {reload} {shlex.quote(command)} {packages}", env=environment)
    print(f"\n  http://127.0.0.1:{port}/    Ctrl-C stops everything\n", flush=True)
    manager.loop()
    stopped_by_a_person = manager.returncode in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    return 0 if stopped_by_a_person else 1


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _locked(lock: IO[str]) -> bool:
    """Return whether we now hold the lock; the system releases it when we end, however we end."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
