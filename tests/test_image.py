"""The image, built for real, and its web, worker and beat: as its user, and with a root that nobody can write to."""

import json
import os
import re
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
from image import BASE, NEEDED, Store, may_mount
from processes import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can build and run an image here"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="buildah or debootstrap is not installed"),
]
IN_APP = {
    *("accounts", "config", "health", "home", "jobs", "metrics", "reliability", "status"),
    *("manage.py", "requirements", "staticfiles", "taskcontracts.json"),
}
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


@pytest.fixture
def store() -> Iterator[Store]:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    if not may_mount(folder):
        shutil.rmtree(folder)
        pytest.skip("this root may not mount anything")
    made = Store(folder)
    try:
        made.make_base()
        yield made
    finally:
        made.remove()


@pytest.fixture
def project(bake, tmp_path) -> Path:
    """A project with what lies about in a folder that somebody works in."""
    folder = shutil.copytree(bake(), tmp_path / "project", symlinks=True)
    for secret in (".env", ".env.local", "production.env", "config/.env", "jobs/staging.env"):
        (folder / secret).write_text("SECRET_KEY=never-in-an-image\n")
    return folder


@contextmanager
def servers(installed: Path) -> Iterator[dict[str, str]]:
    """Run empty servers, and give their URLs."""
    command = [installed / ".venv/bin/python", "-m", "dev.throwaway", sys.executable, "-c", TELL]
    with subprocess.Popen(command, cwd=installed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(next(line for line in process.stdout if line.startswith("{")))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_image(store, project, install, tmp_path):
    """One test, since making its base takes a minute."""
    image = store.build(project, "first")
    has_what_production_needs_and_nothing_else(image, store)
    cannot_be_written_to(image)
    runs_web_worker_and_beat(image, project, install(), tmp_path)
    assert store.build(project, "second").layers == image.layers, "it tells when it was built"


def has_what_production_needs_and_nothing_else(image, store):
    assert {path.name for path in (image.root / "app").iterdir()} == IN_APP
    assert (image.root / "app/staticfiles/staticfiles.json").exists()
    kept = [path for path in (image.root / "app").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"never-in-an-image" in path.read_bytes()]
    unwanted = ("root/.cache", "venv/bin/uv", "venv/bin/pip", "usr/bin/gcc", "usr/bin/cc")
    assert not [name for name in unwanted if (image.root / name).exists()]
    (day,) = re.findall(r"^app:!:(\d*):", (image.root / "etc/shadow").read_text(), re.MULTILINE)
    assert day == "", "it tells the day when it was built"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "acme-shop"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert store.size(image.name) - store.size(BASE) < ADDS


def cannot_be_written_to(image):
    assert image.run("sh", "-c", "id --user; id --group") == (0, "10001\n10001\n")
    code, printed = image.run("touch", "/app/more")
    assert code != 0
    assert "Read-only file system" in printed


def passes(image, service, role, port, process):
    """Return once a process passes its probe of compose.production.yaml, on this port, or has ended."""
    asked = service["healthcheck"]["test"][1:]
    fixed = "8000" if role == "web" else asked[-1]
    probe = [word.replace(fixed, str(port)) for word in asked]
    eventually(lambda: process.poll() is not None or image.run(*probe)[0] == 0, f"{role} passes {probe}")


def runs_web_worker_and_beat(image, project, installed, folder):
    """With the commands and the probes of compose.production.yaml."""
    services = yaml.safe_load((project / "compose.production.yaml").read_text())["services"]
    ports = {role: free_port() for role in ("web", "worker", "beat")}
    own = {"web": {"PORT": str(ports["web"]), "METRICS_PORT": str(free_port())}}
    own |= {role: {"METRICS_PORT": str(ports[role])} for role in ("worker", "beat")}
    running = {}
    with servers(installed) as urls:
        shared = NOT_SECRET | urls
        code, printed = image.run(*services["migrate"]["command"], **shared)
        assert code == 0, printed
        try:
            for role in ports:
                command = services[role].get("command", image.config["Cmd"])
                running[role] = image.start(folder / role, *command, **shared, **own[role])
            for role, process in running.items():
                passes(image, services[role], role, ports[role], process)
                assert process.poll() is None, (folder / role).read_text()
            page = Request(f"http://127.0.0.1:{ports['web']}/", headers={"X-Forwarded-Proto": "https"})
            assert "Acme Shop" in urlopen(page, timeout=60).read().decode()
            assert image.run("python", "manage.py", "shell", "-c", SEND, **shared)[0] == 0
            finished = ("python", "manage.py", "shell", "-c", FINISHED)
            eventually(lambda: image.run(*finished, **shared)[1].endswith("1\n"), "the task to run")
            for process in running.values():
                process.terminate()
            assert [process.wait(60) for process in running.values()] == [0, 0, 0]
        finally:
            for process in running.values():
                process.kill()
                process.wait()
