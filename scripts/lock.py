"""Renew the exact versions in requirements/, this repository's and the template's. Run by `make lock`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}" / "requirements"
SETS = {
    "uv": ["--group", "installer"],
    "tools": ["--group", "tools"],
    "tests": ["--group", "tools", "--group", "tests"],
}


def main():
    """Compile this repository's three sets, then the generated project's, one pair per Django, by its own command."""
    for name, groups in SETS.items():
        options = ["--upgrade", "--universal", "--python-version", "3.11", "--generate-hashes"]
        output = ["-o", f"requirements/{name}.txt"]
        subprocess.run(
            [BIN / "uv", "pip", "compile", "--quiet", *options, *groups, *output],
            cwd=ROOT,
            check=True,
        )
    for django in ("5.2", "6.1"):
        with tempfile.TemporaryDirectory() as folder:
            project = cookiecutter(str(ROOT), no_input=True, output_dir=folder, extra_context={"django": django})
            subprocess.run(["make", "lock", "TOOLS=", f"BIN={BIN}"], cwd=project, check=True)
            for locked in Path(project, "requirements").iterdir():
                shutil.copy(locked, TEMPLATE / f"django-{django}")


if __name__ == "__main__":
    main()
