"""The deployment grants each worker the time that config/celeryconfig.py counts on."""

import re

from dev import BASE_DIR

# jinja: if cookiecutter.deploy == "compose"
FILES = [BASE_DIR / "compose.production.yaml"]
WORKER = r'"worker", (?P<options>.+)\]\n +stop_grace_period: (?P<grace>\d+)s'
BEAT = r'"beat", '

# jinja: elif cookiecutter.deploy == "kubernetes"
FILES = sorted((BASE_DIR / "deploy").glob("**/*.yaml"))
WORKER = r'terminationGracePeriodSeconds: (?P<grace>\d+)\n(?:.+\n)+?.+"worker", (?P<options>.+)\]'
BEAT = r'"beat", '

# jinja: elif cookiecutter.deploy == "systemd"
FILES = sorted((BASE_DIR / "deploy").glob("systemd/*.service"))
WORKER = r"config worker (?P<options>.+)\n(?:.+\n)+?TimeoutStopSec=(?P<grace>\d+)"
BEAT = r"config beat "

# jinja: else
FILES = [BASE_DIR / "Procfile", BASE_DIR / "app.json"]
WORKER = r"config worker(?P<options>.*)\n(?P<grace>)"
BEAT = r"config beat "

# jinja: endif
TEXT = "\n".join(file.read_text() for file in FILES)


def grace(name: str) -> int:
    """Return the seconds that the deployment tells its processes, or the default in config/env.py."""
    default = re.search(rf'"{name}", default=(\d+)', (BASE_DIR / "config" / "env.py").read_text())
    told = re.search(rf"\b{name}\b[^\w\n]+(\d+)", TEXT)
    assert default
    return int((told or default)[1])


def test_every_worker_has_its_grace() -> None:
    """What the platform grants is what the processes are told; else tasks are cut short by a deploy."""
    found = {" ".join(re.findall(r"[\w-]+", worker["options"])): worker["grace"] for worker in workers()}
    # jinja: if cookiecutter.deploy == "heroku"
    assert found == {"": ""}
    assert grace("STOP_GRACE") <= 30
    # jinja: else
    assert found == {"-X long": str(grace("STOP_GRACE")), "-Q long": str(grace("LONG_STOP_GRACE"))}
    # jinja: endif
    assert "REMAP_SIGTERM" in TEXT + (BASE_DIR / "Dockerfile").read_text()


def workers() -> list[re.Match[str]]:
    """Return the options and the grace of each worker."""
    return list(re.finditer(WORKER, TEXT))


def test_there_is_one_beat() -> None:
    """Two would send every task twice."""
    assert len(re.findall(BEAT, TEXT)) == 1
