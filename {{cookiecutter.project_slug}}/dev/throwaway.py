"""Run a command beside empty servers of its own: `python -m dev.throwaway python manage.py shell`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dotenv import dotenv_values

from dev import BASE_DIR, LOCAL
from dev.owner import reachable_folder
from dev.processes import MissingProgramError
from dev.stack import Stack


def plan() -> Stack:
    """Return servers that use no data of anybody's. URLs in the environment come first.

    `.env` comes last, only where a program is missing: its servers hold somebody's data.
    """
    folder = LOCAL / f"throwaway-{os.getpid()}"
    try:
        return Stack(folder, os.environ, durable=False)
    except MissingProgramError as error:
        given = {**dotenv_values(BASE_DIR / ".env"), **os.environ}
        print(f"{error} Using the URLs in .env.", file=sys.stderr)
        return Stack(folder, given, durable=False)


@contextmanager
def running(stack: Stack) -> Iterator[dict[str, str]]:
    """Run the servers, give their URLs, and leave nothing on disk."""
    try:
        with stack:
            yield stack.urls
    finally:
        shutil.rmtree(stack.folder, ignore_errors=True)
        shutil.rmtree(reachable_folder(LOCAL) / stack.folder.name, ignore_errors=True)


def main() -> int:
    """Run the command given as arguments and return its exit status."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m dev.throwaway COMMAND [ARGUMENT ...]")
    try:
        with running(plan()) as urls:
            return subprocess.run(sys.argv[1:], env={**os.environ, **urls}).returncode
    except (MissingProgramError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
