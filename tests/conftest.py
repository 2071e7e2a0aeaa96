"""Bake each variant once, and install the ones that are run once."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"

# One list for every test: each single answer, and the pairs that share a file.
VARIANTS = {
    "default": {},
    "django-6.1": {"django": "6.1"},
    "rabbitmq": {"broker": "rabbitmq"},
    "rabbitmq-django-6.1": {"broker": "rabbitmq", "django": "6.1"},
    "kubernetes": {"deploy": "kubernetes"},
    "kubernetes-rabbitmq": {"deploy": "kubernetes", "broker": "rabbitmq"},
    "systemd": {"deploy": "systemd"},
    "systemd-rabbitmq": {"deploy": "systemd", "broker": "rabbitmq"},
    "heroku": {"deploy": "heroku"},
    "heroku-rabbitmq": {"deploy": "heroku", "broker": "rabbitmq"},
    "gitlab": {"ci": "gitlab"},
    "gitlab-rabbitmq": {"ci": "gitlab", "broker": "rabbitmq"},
    "no-ci": {"ci": "none"},
    "other-names": {
        "project_name": 'Ünïcode & "Quotes" \\ O\'Neil <b># 50%</b>',
        "project_slug": "other",
        "description": 'Says "hi" \\ to # everyone\n on two lines.',
        "author_name": "Zoë 'The \"Boss\"' Ångström",
        "domain_name": "shop.example.org",
    },
}

Bake = Callable[..., Path]


@pytest.fixture(scope="session")
def bake(cookies_session, tmp_path_factory, worker_id) -> Bake:
    """Return the folder of the project with these answers. Do not write into it.

    The same answers are baked once, by whichever of the parallel workers needs them first.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "baked"
    shared.mkdir(exist_ok=True)

    def bake(**answers):
        folder = shared / hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:16]
        with (shared / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                result = cookies_session.bake(extra_context=answers)
                assert result.exception is None, result.exception
                folder.mkdir()
                shutil.move(result.project_path, folder)
        (project,) = folder.iterdir()
        return project

    return bake


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request, bake) -> Path:
    """Each of VARIANTS in turn."""
    return bake(**VARIANTS[request.param])


def python_for(answers) -> str:
    """Return a Python that is new enough for these answers. Skips the test, with the reason, where there is none."""
    needed = (3, 12) if answers.get("django") == "6.1" else (3, 11)
    names = [sys.executable, *(f"python3.{minor}" for minor in (14, 13, 12)), "/usr/bin/python3"]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in (*names, *map(str, pyenv.glob("versions/3.1[2-9].*/bin/python3"))):
        probe = f"import sys, venv; sys.exit(sys.version_info < {needed})"
        if shutil.which(candidate) and not subprocess.run([candidate, "-c", probe], capture_output=True).returncode:
            return candidate
    pytest.skip("no Python {}.{} or newer was found".format(*needed))


@pytest.fixture(scope="session")
def install(bake, tmp_path_factory) -> Iterator[Bake]:
    """Return an installed copy of the project with these answers: its `make up` and `make check` are ready to run."""
    cache = {}

    def install(**answers):
        key = tuple(sorted(answers.items()))
        if key not in cache:
            folder = tmp_path_factory.mktemp("installed") / "project"
            shutil.copytree(bake(**answers), folder, symlinks=True)
            python = python_for(answers)
            subprocess.run(["make", "--silent", "install", f"PYTHON={python}"], cwd=folder, check=True)
            cache[key] = folder
        return cache[key]

    yield install
    for folder in cache.values():  # under root some of its files are in /var/tmp
        subprocess.run(["make", "--silent", "clean", f"PYTHON={sys.executable}"], cwd=folder, check=True)


def tracked_files(project) -> list[Path]:
    """Return the project's files that git would track, relative to it. Leaves no .git there."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", f"--git-dir={folder}", f"--work-tree={project}"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        listed = subprocess.run(
            [*git, "ls-files", "--others", "--exclude-standard", "-z"], cwd=project, check=True, capture_output=True
        )
    return sorted(Path(name) for name in listed.stdout.decode().split("\0") if name)
