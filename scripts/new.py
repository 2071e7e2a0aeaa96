"""`make new`: cookiecutter's questions, then the commands to type next."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main():
    """Generate into the folder that OUT names, hand the arguments to cookiecutter, and return its exit status."""
    folder = Path(os.environ["OUT"]).expanduser()
    before = set(folder.iterdir()) if folder.is_dir() else set()
    command = [sys.executable, "-m", "cookiecutter", ROOT, "--output-dir", folder, *sys.argv[1:]]
    status = subprocess.run(command).returncode
    if status == 0:
        for project in set(folder.iterdir()) - before:
            print(f"\nNext:\n\n  cd {shlex.quote(os.path.relpath(project))}\n  make up")
    return status


if __name__ == "__main__":
    sys.exit(main())
