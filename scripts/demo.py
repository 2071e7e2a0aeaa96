"""`make demo`: generate a project with the default answers, install it, and put it through scripts/kill_worker.py."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "demo"
STARTED = time.monotonic()


def say(text):
    """Print a line of progress with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


def main():
    """Return the exit status of the experiment: 0 only if nothing was lost."""
    say(f"generating a project with the default answers in {BUILD.relative_to(ROOT)}/")
    for previous in BUILD.glob("*/Makefile"):  # it knows what it left outside of its folder
        subprocess.run(["make", "--silent", "-C", previous.parent, "clean"], check=True)
    shutil.rmtree(BUILD, ignore_errors=True)
    project = Path(cookiecutter(str(ROOT), no_input=True, output_dir=str(BUILD)))
    say("installing it, by the exact versions and hashes in its requirements/")
    subprocess.run(["make", "--silent", "-C", project, "install"], check=True)
    say("starting its stack")
    experiment = ROOT / "scripts" / "kill_worker.py"
    try:
        return subprocess.run([project / ".venv/bin/python", experiment, str(STARTED)], cwd=project).returncode
    except KeyboardInterrupt:  # the experiment got it too, and has stopped everything
        return 130


if __name__ == "__main__":
    sys.exit(main())
