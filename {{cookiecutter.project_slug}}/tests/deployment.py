"""What the files of the deployment say of each process, and changes of them that break something."""

# jinja: if cookiecutter.deploy == "heroku"
import json
# jinja: else
import re
# jinja: endif
# jinja: if cookiecutter.deploy in ("systemd", "heroku")
import shlex
# jinja: endif
from dataclasses import dataclass, field
from pathlib import Path
# jinja: if cookiecutter.deploy in ("compose", "kubernetes")
from typing import Any, NamedTuple

import yaml


# jinja: else
from typing import NamedTuple


# jinja: endif
class Change(NamedTuple):
    """One change of a project: `old`, wherever it stands in the file, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Process:
    """One kind of process. Times are in seconds; None where the platform has no such thing."""

    command: list[str]
    grace: int  # from the decision to end it, until SIGKILL
    before_signal: int = 0  # how many of these pass before SIGTERM
    environment: dict[str, str] = field(default_factory=dict)
    how_many: int = 1
    one_at_a_time: bool = True  # in a deploy the old one ends before the new one starts
    after_migrations: bool | None = None
    asked: str | None = None  # what its liveness probe asks
    patience: int | None = None  # how long that may fail, or say nothing, until it counts
    memory: int | None = None  # MiB that it may take
    folders: frozenset[str] | None = None  # where it may write; None for everywhere
    main_hears_first: bool = True  # the signal goes to the main process, not to all at once

    def option(self, *names: str) -> list[str]:
        """Return the values of an option of the command, which are separated by commas."""
        for number, part in enumerate(self.command):
            name, _, value = part.partition("=")
            if name in names:
                return (value or self.command[number + 1]).split(",")
        return []

    @property
    def is_long(self) -> bool:
        """Whether this is a worker of the queue `long`."""
        return self.option("-Q", "--queues") == ["long"]


# jinja: if cookiecutter.deploy in ("compose", "kubernetes")
def of_image(folder: Path) -> dict[str, str]:
    """Return the variables that the image gives to every process."""
    text = (folder / "Dockerfile").read_text()
    base = re.search(r"^FROM \S+ AS base\n(?:(?!FROM).*\n)*?ENV ((?:.*\\\n)*.*)", text, re.MULTILINE)
    return dict(re.findall(r"(\w+)=(\S+)", base[1])) if base else {}


# jinja: endif
# jinja: if cookiecutter.deploy == "compose"
CONNECTIONS = 100  # that PostgreSQL grants by default
FILE = "compose.production.yaml"
WORKER = '"worker", "-X", "long"]'
CHANGES = {
    "a_worker_has_room_for_its_processes": Change(FILE, "mem_limit: 1g", "mem_limit: 800m"),
    "all_are_told_the_same": Change(
        FILE, "    stop_grace_period: 310s", "    environment: {STOP_GRACE: 310}\n    stop_grace_period: 310s"
    ),
    # jinja: if cookiecutter.broker == "redis"
    "broker_and_cache_are_two": Change(FILE, "CACHE_URL: redis://cache", "CACHE_URL: redis://broker"),
    # jinja: endif
    # jinja: if cookiecutter.broker == "redis"
    "broker_forgets_nothing": Change(FILE, '"noeviction"', '"allkeys-lru"'),
    # jinja: endif
    "every_queue_has_its_worker": Change(FILE, WORKER, '"worker", "-X", "celery"]'),
    "grace_is_what_processes_are_told": Change(FILE, "stop_grace_period: 310s", "stop_grace_period: 610s"),
    "liveness_asks_no_server": Change(FILE, '"livez", "9812"', '"readyz", "9812"'),
    "migrations_come_first": Change(FILE, "service_completed_successfully", "service_started"),
    "signals_reach_the_main_process": Change(
        FILE, '["celery", "-A", "config", ' + WORKER, '["sh", "-c", "celery -A config worker -X long"]'
    ),
    "there_is_one_beat": Change(FILE, WORKER, '"worker", "-B", "-X", "long"]'),
    "what_hangs_is_found_within_a_minute": Change(FILE, "retries: 2\n", "retries: 5\n"),
    "who_may_not_write_has_a_folder": Change(FILE, "- beat:/var/lib/beat", "- beat:/var/lib/other"),
    "workers_know_what_sigterm_means": Change("Dockerfile", "SIGQUIT", "SIGTERM"),
}


def processes(folder: Path) -> dict[str, Process]:
    """Return what runs in production, by name."""
    services = yaml.safe_load((folder / FILE).read_text())["services"]
    own = services["web"]["image"]
    image = of_image(folder)
    return {name: _process(one, image) for name, one in services.items() if one.get("image") == own}


def _process(service: dict[str, Any], image: dict[str, str]) -> Process:
    check = service.get("healthcheck", {})
    asks = "health/ask.py" in check.get("test", ())
    volumes = [volume.split(":")[1] for volume in service.get("volumes", [])]
    ((size, unit),) = re.findall(r"^(\d+)([mg])$", service["mem_limit"])
    awaited = service["depends_on"].get("migrate", {}).get("condition")
    return Process(
        command=service.get("command", []),
        grace=int(service.get("stop_grace_period", "10s").removesuffix("s")),
        environment={**image, **{name: str(value) for name, value in service["environment"].items()}},
        how_many=service.get("deploy", {}).get("replicas", service.get("scale", 1)),
        after_migrations=awaited == "service_completed_successfully",
        asked=check["test"][-2] if asks else None,
        patience=int(check["interval"].removesuffix("s")) * check.get("retries", 3) if asks else None,
        memory=int(size) * {"m": 1, "g": 1024}[unit],
        folders=frozenset([*service["tmpfs"], *volumes]) if service["read_only"] else None,
    )
# jinja: elif cookiecutter.deploy == "kubernetes"
CONNECTIONS = 100  # that PostgreSQL grants by default
BASE = "deploy/base"
WORKER = '["celery", "-A", "config", "worker", "-X", "long"]'
SCALED = "deploy/components/worker-autoscaling/autoscalers.yaml"
CHANGES = {
    "a_worker_has_room_for_its_processes": Change(f"{BASE}/worker.yaml", "memory: 1Gi", "memory: 800Mi"),
    "autoscalers_count_what_their_workers_take": Change(SCALED, 'queue="long"', 'queue="short"'),
    "autoscalers_wait_for_the_longest_task": Change(SCALED, "Period: 310", "Period: 30"),
    "every_queue_has_its_worker": Change(f"{BASE}/worker.yaml", '"-X", "long"', '"-X", "celery"'),
    "grace_is_what_processes_are_told": Change(f"{BASE}/worker.yaml", "Seconds: 310", "Seconds: 610"),
    "liveness_asks_no_server": Change(f"{BASE}/worker.yaml", "path: /livez", "path: /readyz"),
    "migrations_come_first": Change(
        f"{BASE}/kustomization.yaml", "      kind: Deployment", "      kind: Deployment\n      name: web"
    ),
    "rules_are_the_same_everywhere": Change("monitoring/alerts.yaml", "> 5 * 60", "> 6 * 60"),
    "signals_reach_the_main_process": Change(
        f"{BASE}/worker.yaml", WORKER, '["sh", "-c", "celery -A config worker -X long"]'
    ),
    "there_is_one_beat": Change(f"{BASE}/beat.yaml", "type: Recreate", "type: RollingUpdate"),
    "what_hangs_is_found_within_a_minute": Change(
        f"{BASE}/worker.yaml", "failureThreshold: 2\n", "failureThreshold: 9\n"
    ),
    "who_may_not_write_has_a_folder": Change(f"{BASE}/beat.yaml", "/var/lib/beat\n", "/var/lib/other\n"),
    "workers_know_what_sigterm_means": Change("Dockerfile", "SIGQUIT", "SIGTERM"),
}


def autoscalers(folder: Path) -> list[dict[str, Any]]:
    """Return what all autoscalers specify, Kubernetes' own and KEDA's."""
    files = sorted((folder / "deploy/components").glob("*-autoscaling/autoscaler*.yaml"))
    return [one["spec"] for file in files for one in yaml.safe_load_all(file.read_text())]


def processes(folder: Path) -> dict[str, Process]:
    """Return what the Deployments run, by name, as many as production may have of each."""
    overlay = yaml.safe_load((folder / "deploy/overlays/production/kustomization.yaml").read_text())
    replicas = {one["name"]: one["count"] for one in overlay["replicas"]}
    for spec in autoscalers(folder):
        replicas[spec["scaleTargetRef"]["name"]] = spec.get("maxReplicas") or spec["maxReplicaCount"]
    base = yaml.safe_load((folder / BASE / "kustomization.yaml").read_text())
    environment = of_image(folder)
    for layer in (base, overlay):
        (config,) = layer["configMapGenerator"]
        environment |= dict(one.split("=", 1) for one in config["literals"])
    waits = {"path": "wait-for-migrations.yaml", "target": {"kind": "Deployment"}} in base["patches"]
    waits = waits and '"migrate", "--check"]' in (folder / BASE / "wait-for-migrations.yaml").read_text()
    found = {}
    for path in base["resources"]:
        for one in yaml.safe_load_all((folder / BASE / path).read_text()):
            if one["kind"] == "Deployment":
                name = one["metadata"]["name"]
                number = replicas.get(name, one["spec"].get("replicas", 1))
                found[name] = _process(one["spec"], environment, number, waits)
    return found


def _process(spec: dict[str, Any], environment: dict[str, str], number: int, waits: bool) -> Process:
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    probe = container["livenessProbe"]
    memory = container["resources"]["limits"]["memory"]
    folders = frozenset(mount["mountPath"] for mount in container["volumeMounts"])
    return Process(
        command=container.get("command", []),
        grace=pod.get("terminationGracePeriodSeconds", 30),
        before_signal=container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0),
        environment=environment,
        how_many=number,
        one_at_a_time=spec.get("strategy", {}).get("type") == "Recreate",
        after_migrations=waits,
        asked=probe["httpGet"]["path"].removeprefix("/"),
        patience=probe["periodSeconds"] * probe.get("failureThreshold", 3),
        memory=int(memory[:-2]) * {"Mi": 1, "Gi": 1024}[memory[-2:]],
        folders=folders if container["securityContext"]["readOnlyRootFilesystem"] else None,
    )
# jinja: elif cookiecutter.deploy == "systemd"
CONNECTIONS = 100  # that PostgreSQL grants by default
PREFIX = "{{ cookiecutter.__dashed }}-"
WORKER = f"deploy/systemd/{PREFIX}worker.service"
CHANGES = {
    "all_are_told_the_same": Change(WORKER, "=SIGQUIT", "=SIGQUIT\nEnvironment=STOP_GRACE=310"),
    "every_queue_has_its_worker": Change(WORKER, "worker -X long", "worker -X celery"),
    "grace_is_what_processes_are_told": Change(WORKER, "StopSec=310", "StopSec=610"),
    "liveness_asks_no_server": Change(WORKER, "Type=notify", "Type=exec"),
    "signals_reach_the_main_process": Change(WORKER, "=mixed", "=control-group"),
    "there_is_one_beat": Change(WORKER, "worker -X long", "worker -B -X long"),
    "what_hangs_is_found_within_a_minute": Change(WORKER, "Sec=20", "Sec=90"),
    "workers_know_what_sigterm_means": Change(WORKER, "=SIGQUIT", "=SIGTERM"),
}


def processes(folder: Path) -> dict[str, Process]:
    """Return what the units run, by name."""
    units = sorted((folder / "deploy" / "systemd").glob("*.service"))
    return {unit.stem.removeprefix(PREFIX): _process(unit.read_text()) for unit in units}


def _process(text: str) -> Process:
    lines = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
    unit = dict(lines)
    watched = int(unit.get("WatchdogSec", 0))
    return Process(
        command=shlex.split(unit["ExecStart"]),
        grace=int(unit.get("TimeoutStopSec", 90)),
        environment=dict(value.split("=", 1) for name, value in lines if name == "Environment"),
        asked="livez" if watched and unit["Type"] == "notify" else None,
        patience=watched or None,
        main_hears_first=unit.get("KillMode") == "mixed",
    )
# jinja: else
CONNECTIONS = 20  # of the smallest plan of heroku-postgresql
CHANGES = {
    "a_worker_has_room_for_its_processes": Change("app.json", '"180"', '"250"'),
    "every_queue_has_its_worker": Change("Procfile", "config worker", "config worker -X celery"),
    "grace_is_what_processes_are_told": Change(
        "config/env.py", '"STOP_GRACE", default=30', '"STOP_GRACE", default=60'
    ),
    "migrations_come_first": Change("Procfile", "manage.py migrate", "manage.py check"),
    "signals_reach_the_main_process": Change("Procfile", "celery -A config worker", "sh -c 'celery worker'"),
    "there_is_one_beat": Change("app.json", '"beat": { "quantity": 1', '"beat": { "quantity": 2'),
    "workers_know_what_sigterm_means": Change("app.json", '"SIGQUIT"', '"SIGTERM"'),
}


def processes(folder: Path) -> dict[str, Process]:
    """Return what the Procfile runs, by name."""
    told = json.loads((folder / "app.json").read_text())
    environment = {name: about["value"] for name, about in told["env"].items() if "value" in about}
    commands = dict(line.split(": ", 1) for line in (folder / "Procfile").read_text().splitlines())
    migrates = " migrate" in commands.pop("release", "")
    return {
        name: Process(
            command=shlex.split(command),
            grace=30,  # Heroku's own, for every process
            environment=environment,
            how_many=told["formation"][name]["quantity"],
            after_migrations=migrates,
            memory=512,  # of the smallest dyno
        )
        for name, command in commands.items()
    }
# jinja: endif
