"""The image, built for real, and its web, worker and beat: as its user, and with a root that nobody can write to."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml
from image import NEEDED, Image, Store
from processes import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can build and run an image here"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="buildah or debootstrap is not installed"),
]
ADDS = 130e6  # bytes that the image may have above its base, which is 286 MB here
SEND = """
from jobs.models import Report; from jobs.tasks import write_report
report = Report.objects.create(title="Ants")
write_report.delay(report.pk)
"""
FINISHED = "from jobs.models import Report; print(Report.objects.exclude(finished_at=None).count())"
TELL = """
import json, os, sys
print(json.dumps({name: value for name, value in os.environ.items() if name.endswith("_URL")}), flush=True)
sys.stdin.read()
"""
NOT_SECRET = {
    "SECRET_KEY": "a-key-for-one-test-that-is-long-enough-to-be-taken-for-one",
    "ALLOWED_HOSTS": "127.0.0.1",
    "EMAIL_URL": "smtp://localhost",
    "DEFAULT_FROM_EMAIL": "shop@example.com",
    "BEHIND_TLS_PROXY": "true",
}


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = Store(Path(tempfile.mkdtemp(dir="/var/tmp")))
    try:
        made.make_base()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def project(bake, tmp_path_factory) -> Path:
    """A project with what lies about in a folder that somebody works in."""
    folder = shutil.copytree(bake(), tmp_path_factory.mktemp("image") / "project", symlinks=True)
    for secret in (".env", ".env.local", "production.env"):
        (folder / secret).write_text("SECRET_KEY=never-in-an-image\n")
    return folder


@pytest.fixture(scope="module")
def image(store, project) -> Image:
    return store.build(project, "first")


@contextmanager
def servers(installed: Path) -> Iterator[dict[str, str]]:
    """Run empty servers, and give their URLs."""
    command = [installed / ".venv/bin/python", "-m", "dev.throwaway", sys.executable, "-c", TELL]
    with subprocess.Popen(command, cwd=installed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(next(line for line in process.stdout if line.startswith("{")))
        process.stdin.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_it_has_what_production_needs_and_nothing_else(image, store):
    files = {str(path.relative_to(image.root)) for path in image.root.rglob("*")}
    assert {"app/manage.py", "app/staticfiles/staticfiles.json", "venv/bin/celery"} <= files
    left = [name for name in files if name.startswith(("root/.cache/", "venv/bin/uv", "venv/bin/pip", "usr/bin/gcc"))]
    assert left == []
    assert "never-in-an-image" not in "".join(
        path.read_text() for path in image.root.glob("app/**/*env*") if path.is_file()
    )
    (user, group), labels = image.config["User"].split(":"), image.config["Labels"]
    assert int(user) > 0 < int(group)
    assert labels["org.opencontainers.image.title"] == "acme-shop"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert store.size(image.name) - store.size("python:3.13-slim") < ADDS


def test_it_is_the_same_again(image, store, project):
    """Nothing of the moment is in it: who builds it again can tell that it is this code."""
    assert store.build(project, "second").layers == image.layers


def test_its_root_cannot_be_written_to(image):
    assert image.run("sh", "-c", "id --user; id --group") == (0, "10001\n10001\n")
    code, printed = image.run("touch", "/app/more")
    assert code != 0
    assert "Read-only file system" in printed


def test_web_worker_and_beat_run_from_it(image, project, install):
    """With the commands and the probes of compose.production.yaml."""
    services = yaml.safe_load((project / "compose.production.yaml").read_text())["services"]
    ports = {"web": free_port(), "worker": free_port(), "beat": free_port()}
    with servers(install()) as urls:
        shared = NOT_SECRET | urls
        code, printed = image.run(*services["migrate"]["command"], **shared)
        assert code == 0, printed
        own = {"web": {"PORT": str(ports["web"]), "METRICS_PORT": str(free_port())}}
        own |= {role: {"METRICS_PORT": str(ports[role])} for role in ("worker", "beat")}
        running = {
            role: image.start(*services[role].get("command", image.config["Cmd"]), **shared, **own[role])
            for role in ports
        }
        try:
            for role, process in running.items():
                asked = services[role]["healthcheck"]["test"][1:]
                before = "8000" if role == "web" else asked[-1]
                probe = [word.replace(before, str(ports[role])) for word in asked]
                eventually(
                    lambda probe=probe, process=process: process.poll() is not None or image.run(*probe)[0] == 0,
                    f"{role} passes {shlex.join(probe)}",
                )
                assert process.poll() is None, process.stdout.read()
            page = Request(f"http://127.0.0.1:{ports['web']}/", headers={"X-Forwarded-Proto": "https"})
            assert "Acme Shop" in urlopen(page, timeout=60).read().decode()
            assert image.run("python", "manage.py", "shell", "-c", SEND, **shared)[0] == 0
            eventually(
                lambda: image.run("python", "manage.py", "shell", "-c", FINISHED, **shared)[1].endswith("1\n"),
                "the task to run",
            )
        finally:
            for process in running.values():
                process.terminate()
            ended = {role: process.wait(60) for role, process in running.items()}
        assert ended == dict.fromkeys(ports, 0)
