"""`make new`: cookiecutter's questions, then the commands to type next."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main():
    """Generate into the first argument, hand the others to cookiecutter, and return its exit status."""
    output, *arguments = sys.argv[1:]
    folder = Path(output)
    before = set(folder.iterdir()) if folder.is_dir() else set()
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--output-dir", output, *arguments]
    status = subprocess.run(command).returncode
    if status == 0:
        for project in set(folder.iterdir()) - before:
            print(f"\nNext:\n\n  cd {os.path.relpath(project)}\n  make up")
    return status


if __name__ == "__main__":
    sys.exit(main())
