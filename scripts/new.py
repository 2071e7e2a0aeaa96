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
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        # A refusal is a few plain lines; the traceback that cookiecutter adds to it helps nobody.
        plain, _, traceback = done.stderr.partition("Traceback (most recent call last):")
        print(plain.strip() or traceback.strip().splitlines()[-1], file=sys.stderr)
        return done.returncode
    for project in set(folder.iterdir()) - before:
        print(f"\nNext:\n\n  cd {shlex.quote(os.path.relpath(project))}\n  make up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
