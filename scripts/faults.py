"""`make faults`, `make faults-full`: run the fault suite of a generated project for each broker.

The full one compares with other settings, takes each of ours away, and writes docs/faults.md.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "faults"
PAGE = Path("docs") / "faults.md"


def run(broker, target):
    """Generate a project with this broker, run its suite, and return whether that passed."""
    for previous in (BUILD / broker).glob("*/Makefile"):  # it knows what it left outside of its folder
        subprocess.run(["make", "--silent", "-C", previous.parent, "clean"], check=True)
    shutil.rmtree(BUILD / broker, ignore_errors=True)
    answers = {"broker": broker}
    project = Path(cookiecutter(str(ROOT), no_input=True, extra_context=answers, output_dir=str(BUILD / broker)))
    subprocess.run(["make", "--silent", "-C", project, "install"], check=True)
    if target == "faults-full" and (ROOT / PAGE).exists():
        shutil.copy(ROOT / PAGE, project / PAGE)  # the run renews the part of its broker
    passed = subprocess.run(["make", "--silent", "-C", project, target]).returncode == 0
    if target == "faults-full" and passed:
        shutil.copy(project / PAGE, ROOT / PAGE)
    return passed


def main():
    """Return 0 when both suites passed."""
    target = sys.argv[1]
    passed = [run(broker, target) for broker in ("redis", "rabbitmq")]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
