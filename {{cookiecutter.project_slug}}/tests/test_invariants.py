"""What must agree across the settings, the files of the deployment and the alerts.

The name of each invariant is its id, its docstring says why, and its link where that comes from. With each
comes a change of one file, which it must notice in a copy of the project.
"""

import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from dev import BASE_DIR
# jinja: if cookiecutter.deploy == "kubernetes"
from dev.rules import FILE, rules
from tests.deployment import CHANGES, CONNECTIONS, Change, Process, autoscalers, processes

# jinja: else
from tests.deployment import CHANGES, CONNECTIONS, Change, Process, processes

# jinja: endif


READ = """
import json
from config import celeryconfig, env, gunicorn
from health import beat, worker
told = {name: value for module in (env, celeryconfig, gunicorn) for name, value in vars(module).items()}
told |= {"LIVE_WORKER": worker.LIMIT, "LIVE_BEAT": beat.LIMIT}
print(json.dumps({name: value for name, value in told.items() if name[0] != "_"}, default=str))
"""
PARTS = ("config", "deploy", "health", "jobs", "metrics", "monitoring", "reliability", "status")
SETTINGS = "config/celeryconfig.py"
CELERY = "https://docs.celeryq.dev/en/stable/userguide"
MAIN_PROCESS = 130  # MiB of a worker, beside the processes that run tasks
OTHERS = 6  # connections to the database: exporter, migrations, a person, and three for its administrator
SAME = ("STOP_GRACE", "LONG_STOP_GRACE", "TASK_LONGEST_DELAY")


class Facts(NamedTuple):
    """A project, as production would run it."""

    folder: Path
    settings: Any  # of config/env.py, config/celeryconfig.py and config/gunicorn.py, and LIMIT of health/
    processes: dict[str, Process]

    def of(self, program: str) -> dict[str, Process]:
        """Return the processes of one of Celery's programs."""
        return {name: one for name, one in self.processes.items() if program in one.command}

    def limit(self, worker: Process) -> int:
        """Return the seconds that a task may take in this worker."""
        return int(self.settings.LONG_TIME_LIMIT if worker.is_long else self.settings.task_time_limit)

    def queues(self, worker: Process) -> set[str]:
        """Return the names of the queues that it reads."""
        named = set(worker.option("-Q", "--queues"))
        return named or self.all_queues - set(worker.option("-X", "--exclude-queues"))

    @property
    def all_queues(self) -> set[str]:
        """Return the names of those that the settings name."""
        return set(getattr(self.settings, "task_queues", ["celery"]))

    def longest(self) -> int:
        """Return the seconds that any task may take."""
        return max(map(self.limit, self.of("worker").values()))


class Invariant(NamedTuple):
    """A check that yields what is wrong."""

    check: Callable[[Facts], Iterator[str]]
    link: str
    broken_by: Change


INVARIANTS: dict[str, Invariant] = {}


def invariant(link: str, *change: str) -> Callable[[Any], Any]:
    """Add a check, with the source of its reason and a change that breaks it.

    A change that differs by platform is one of CHANGES. Where it has none, this platform has no such thing.
    """

    def add(check: Callable[[Facts], Iterator[str]]) -> None:
        broken_by = Change(*change) if change else CHANGES.get(check.__name__)
        if broken_by:
            INVARIANTS[check.__name__] = Invariant(check, link, broken_by)

    return add


# Limits and graces


@invariant(f"{CELERY}/workers.html#time-limits", SETTINGS, "_soft_limit(task_time_limit)", "task_time_limit")
def soft_limit_comes_first(facts: Facts) -> Iterator[str]:
    """A task that reaches its limit needs time to tidy up before it is killed."""
    soft, hard = facts.settings.task_soft_time_limit, facts.settings.task_time_limit
    if not 0 < soft < hard:
        yield f"soft limit {soft} s, hard limit {hard} s"


@invariant(f"{CELERY}/workers.html#soft-shutdown", SETTINGS, "STOP_GRACE - _EXIT", "STOP_GRACE")
def grace_covers_task_and_exit(facts: Facts) -> Iterator[str]:
    """A worker that is asked to end finishes what runs, then needs 10 s to give back the rest."""
    for name, worker in facts.of("worker").items():
        needed = max(facts.limit(worker), facts.settings.worker_soft_shutdown_timeout) + 10
        if worker.grace - worker.before_signal < needed:
            yield f"{name} is granted {worker.grace} s, and may need {needed}"


@invariant(f"{CELERY}/workers.html#soft-shutdown")
def grace_is_what_processes_are_told(facts: Facts) -> Iterator[str]:
    """What no process knows of is lost to its tasks; what is not granted cuts them short."""
    for name, worker in facts.of("worker").items():
        told = facts.settings.LONG_STOP_GRACE if worker.is_long else facts.settings.STOP_GRACE
        if worker.grace - worker.before_signal != told:
            yield f"{name} has {worker.grace - worker.before_signal} s from SIGTERM on, and is told {told}"


@invariant(f"{CELERY}/configuration.html#task-time-limit")
def all_are_told_the_same(facts: Facts) -> Iterator[str]:
    """Who sends a task writes its limit into the message; who runs it counts on that."""
    for variable in SAME:
        told = {name: one.environment.get(variable) for name, one in facts.processes.items()}
        if len(set(told.values())) > 1:
            yield f"{variable}: {told}"


@invariant(f"{CELERY}/workers.html#worker-remap-sigterm")
def workers_know_what_sigterm_means(facts: Facts) -> Iterator[str]:
    """Without REMAP_SIGTERM a worker waits for its tasks until it is killed, and gives nothing back."""
    for name, worker in facts.of("worker").items():
        if worker.environment.get("REMAP_SIGTERM") != "SIGQUIT":
            yield f"{name} does not"


@invariant(
    f"{CELERY}/configuration.html#task-acks-late", SETTINGS, "task_acks_late = True", "task_acks_late = False"
)
def what_does_not_finish_is_given_back(facts: Facts) -> Iterator[str]:
    """A worker can give back only what it has not acknowledged."""
    for name in ("task_acks_late", "task_reject_on_worker_lost"):
        if not getattr(facts.settings, name):
            yield f"{name} is off"


@invariant("https://github.com/celery/celery/issues/2839")
def signals_reach_the_main_process(facts: Facts) -> Iterator[str]:
    """A shell in between passes no signal on, and one to all processes at once ends what they run."""
    for name, process in facts.processes.items():
        if Path(next(iter(process.command), "")).name in {"sh", "bash", "dash", "ash"}:
            yield f"{name} is started by a shell"
        if not process.main_hears_first:
            yield f"{name} has the signal sent to all of its processes"


@invariant(
    "https://docs.gunicorn.org/en/stable/settings.html#graceful-timeout",
    "config/gunicorn.py",
    "graceful_timeout = 20",
    "graceful_timeout = 60",
)
def requests_finish_within_the_grace_of_web(facts: Facts) -> Iterator[str]:
    """What web grants its requests begins after what the platform waits before the signal."""
    web, needed = facts.processes["web"], facts.settings.graceful_timeout
    if web.before_signal + needed >= web.grace:
        yield f"{web.before_signal} s and then {needed}, of {web.grace}"


# The broker


# jinja: if cookiecutter.broker == "redis"
@invariant(
    "https://github.com/celery/celery/issues/5935",
    SETTINGS,
    "TASK_LONGEST_DELAY + 2 * _LONGEST",
    "TASK_LONGEST_DELAY",
)
def visibility_timeout_covers_delay_and_runs(facts: Facts) -> Iterator[str]:
    """A task that waits or runs for longer than that is run twice, at the same time."""
    told = facts.settings.broker_transport_options["visibility_timeout"]
    runs = facts.settings.worker_prefetch_multiplier + 1
    needed = facts.settings.TASK_LONGEST_DELAY + runs * facts.longest()
    if told < needed:
        yield f"{told} s, and a task may need {needed}"


@invariant(
    f"{CELERY}/configuration.html#broker-transport-options", SETTINGS, '_throttle": 1', '_throttle": 10'
)
def lost_work_is_looked_for_often(facts: Facts) -> Iterator[str]:
    """What a killed worker held comes back only when another one looks for it."""
    options = facts.settings.broker_transport_options
    every = options["unacked_restore_interval"] * options["unacked_restore_throttle"]
    if every > 10:
        yield f"once in {every} s"


@invariant(
    "https://redis.readthedocs.io/en/stable/connections.html", SETTINGS, '    "socket_timeout": 2,\n', ""
)
def no_call_to_the_broker_waits_for_ever(facts: Facts) -> Iterator[str]:
    """A web request that sends a task to a frozen broker would hang with it."""
    for name in ("socket_timeout", "socket_connect_timeout"):
        if not facts.settings.broker_transport_options.get(name):
            yield f"{name} is not set"


@invariant("https://redis.io/docs/latest/develop/reference/eviction/")
def broker_and_cache_are_two(facts: Facts) -> Iterator[str]:
    """What may be evicted is one answer for a whole server: the cache forgets, the broker must not."""
    told = facts.processes["web"].environment
    broker, cache = (told[name].rpartition(":")[0] for name in ("BROKER_URL", "CACHE_URL"))
    if broker == cache:
        yield f"both are {cache}"


@invariant("https://redis.io/docs/latest/develop/reference/eviction/")
def broker_forgets_nothing(facts: Facts) -> Iterator[str]:
    """A full broker that evicts drops messages in silence, and one that writes nothing down loses them."""
    text = (facts.folder / CHANGES["broker_forgets_nothing"].file).read_text()
    (command,) = re.findall(r"\n  broker:\n.+\n    command: (.+)", text)
    for option in ('"--maxmemory-policy", "noeviction"', '"--appendonly", "yes"'):
        if option not in command:
            yield f"the broker is not started with {option}"


# jinja: else
@invariant("https://github.com/celery/celery/issues/6760", SETTINGS, "24 * 3600 * 1000", "60 * 1000")
def consumer_timeout_covers_what_is_held(facts: Facts) -> Iterator[str]:
    """RabbitMQ closes the channel of a worker that has not acknowledged a message by then."""
    needed = facts.settings.worker_prefetch_multiplier * facts.longest()
    for name in set(facts.settings.task_queues) - {"rejected"}:
        told = facts.settings.task_queues[name]["queue_arguments"].get("x-consumer-timeout", 1800_000) / 1000
        if told < needed:
            yield f"{name} has {told:.0f} s, and a message may be held for {needed}"


@invariant(f"{CELERY}/configuration.html#broker-transport-options", SETTINGS, '    "read_timeout": 2,', "")
def no_call_to_the_broker_waits_for_ever(facts: Facts) -> Iterator[str]:
    """A web request that sends a task to a frozen broker would hang with it."""
    if not facts.settings.broker_transport_options.get("read_timeout"):
        yield "read_timeout is not set"


# jinja: endif
@invariant(f"{CELERY}/configuration.html#broker-use-ssl", SETTINGS, "_ssl.CERT_REQUIRED", "_ssl.CERT_NONE")
def broker_shows_its_certificate(facts: Facts) -> Iterator[str]:
    """Who sits between reads the password and every task, and sends tasks of his own."""
    if ssl.CERT_REQUIRED not in facts.settings.broker_use_ssl.values():
        yield "any certificate will do"


@invariant(f"{CELERY}/security.html#serializers", SETTINGS, '["json"]', '["json", "pickle"]')
def messages_are_data(facts: Facts) -> Iterator[str]:
    """Who can write to the broker could run code in each worker, by a pickle."""
    if facts.settings.accept_content != ["json"]:
        yield f"workers accept {facts.settings.accept_content}"


# Queues and the schedule


@invariant(f"{CELERY}/workers.html#queues")
def every_queue_has_its_worker(facts: Facts) -> Iterator[str]:
    """What is sent to a queue that nobody reads waits there unseen."""
    read = set().union(*map(facts.queues, facts.of("worker").values()))
    for queue in facts.all_queues ^ read:
        yield f"{queue} is no queue" if queue in read else f"{queue} has no worker"


@invariant(f"{CELERY}/periodic-tasks.html#starting-the-scheduler")
def there_is_one_beat(facts: Facts) -> Iterator[str]:
    """Two would send every task twice."""
    beats = facts.of("beat")
    if [(one.how_many, one.one_at_a_time) for one in beats.values()] != [(1, True)]:
        yield f"{beats}"
    for name, worker in facts.of("worker").items():
        if {"-B", "--beat"} & set(worker.command):
            yield f"{name} has one inside"


@invariant(
    f"{CELERY}/configuration.html#beat-max-loop-interval",
    SETTINGS,
    "loop_interval = 5",
    "loop_interval = 300",
)
def silence_of_beat_means_something(facts: Facts) -> Iterator[str]:
    """Probe and alert must not take a beat that sleeps for one that hangs."""
    rules = (facts.folder / "monitoring" / "alerts.yaml").read_text()
    (minutes,) = re.findall(r"celery_beat_tick_age_seconds > (\d+) \* 60", rules)
    for what, seconds in {"probe": facts.settings.LIVE_BEAT, "alert": int(minutes) * 60}.items():
        if seconds < 2 * facts.settings.beat_max_loop_interval:
            yield f"{what}: {seconds} s, and beat may sleep for {facts.settings.beat_max_loop_interval}"


@invariant(f"{CELERY}/periodic-tasks.html#available-fields", SETTINGS, '{"expires": 3600}', "{}")
def what_is_scheduled_expires(facts: Facts) -> Iterator[str]:
    """After an outage of the workers each missed run would be made up, all at once."""
    for name, entry in facts.settings.beat_schedule.items():
        if not entry.get("options", {}).get("expires"):
            yield f"{name} never does"


# jinja: if cookiecutter.deploy == "kubernetes"
@invariant("https://keda.sh/docs/latest/scalers/prometheus/")
def autoscalers_count_what_their_workers_take(facts: Facts) -> Iterator[str]:
    """One that looks at another queue, or another environment, starts no worker for what waits."""
    overlay = (facts.folder / "deploy/overlays/production/kustomization.yaml").read_text()
    (namespace,) = re.findall(r"^namespace: (\S+)$", overlay, re.MULTILINE)
    for spec in autoscalers(facts.folder):
        name = spec["scaleTargetRef"]["name"]
        for trigger in spec.get("triggers", ()):
            query = trigger["metadata"]["query"]
            ((figure, where, sign, pattern),) = re.findall(
                r'(celery_\w+)\{namespace="(.+?)",queue([=!~]+)"(.+?)"\}', query
            )
            if not any(f'"{figure}"' in file.read_text() for file in (facts.folder / "metrics").glob("*.py")):
                yield f"nobody tells {figure}"
            counted = {
                queue for queue in facts.all_queues if bool(re.fullmatch(pattern, queue)) == (sign[0] == "=")
            }
            if where != namespace or counted != facts.queues(facts.processes[name]) - {"rejected"}:
                yield f"{name} is scaled by {counted} of {where}"


@invariant("https://keda.sh/docs/latest/reference/scaledobject-spec/")
def autoscalers_wait_for_the_longest_task(facts: Facts) -> Iterator[str]:
    """What is in a worker does not wait in a queue: seen from there, a long task looks like nothing to do."""
    for spec in autoscalers(facts.folder):
        name, pause = spec["scaleTargetRef"]["name"], spec.get("cooldownPeriod", 300)  # by default
        if pause < facts.processes[name].grace:
            yield f"{name}: after {pause} s, and it is granted {facts.processes[name].grace}"


@invariant("https://prometheus-operator.dev/docs/developer/alerting/")
def rules_are_the_same_everywhere(facts: Facts) -> Iterator[str]:
    """Those that promtool has tested are those that fire."""
    if (facts.folder / FILE).read_text() != rules(facts.folder):
        yield f"{FILE} is older than monitoring/alerts*.yaml: run `python -m dev.rules`"


# jinja: endif
# Health


@invariant("https://github.com/celery/celery/issues/4079")
def liveness_asks_no_server(facts: Facts) -> Iterator[str]:
    """An outage of the broker would restart every worker, which mends nothing and interrupts what runs."""
    for name, process in facts.processes.items():
        watched = process.asked is not None or name in {**facts.of("worker"), **facts.of("beat")}
        if watched and process.asked != "livez":
            yield f"{name} is asked {process.asked}"


@invariant(
    f"{CELERY}/configuration.html#broker-connection-timeout", "health/worker.py", "LIMIT = 40", "LIMIT = 4"
)
def waiting_for_the_broker_is_no_illness(facts: Facts) -> Iterator[str]:
    """One call to a broker that does not answer holds up the loop for some seconds."""
    options = facts.settings.broker_transport_options
    call = options.get("socket_timeout") or options.get("read_timeout")
    limit = facts.settings.LIVE_WORKER
    if limit < 5 * call:
        yield f"the loop may stand still for {limit} s, and a call takes {call}"


@invariant("https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/")
def what_hangs_is_found_within_a_minute(facts: Facts) -> Iterator[str]:
    """A process says after its own limit that it hangs; who asks adds to that."""
    limits = {"worker": facts.settings.LIVE_WORKER, "beat": facts.settings.LIVE_BEAT}
    for program, limit in limits.items():
        for name, process in facts.of(program).items():
            if process.patience is None or limit + process.patience > 60:
                yield f"{name}: {limit} s, and then {process.patience}"


# Room and order


@invariant(f"{CELERY}/workers.html#max-memory-per-child-setting")
def a_worker_has_room_for_its_processes(facts: Facts) -> Iterator[str]:
    """What leaks is to be replaced after its task, not killed in the middle of it."""
    needed = facts.settings.WORKER_CONCURRENCY * facts.settings.WORKER_MAX_MEMORY_MB + MAIN_PROCESS
    for name, worker in facts.of("worker").items():
        if worker.memory is None or worker.memory < needed:
            yield f"{name} may take {worker.memory} MiB, and needs {needed}"


@invariant(
    "https://www.postgresql.org/docs/current/runtime-config-connection.html",
    "config/env.py",
    '"WEB_THREADS", default=4',
    '"WEB_THREADS", default=400',
)
def database_has_room_for_all(facts: Facts) -> Iterator[str]:
    """Threads of web and processes of workers hold one connection each, old workers beside new ones."""
    told = facts.settings
    used = facts.processes["web"].how_many * told.WEB_CONCURRENCY * told.WEB_THREADS
    for worker in facts.of("worker").values():
        beside = 1 if worker.one_at_a_time else 2
        used += worker.how_many * beside * (told.WORKER_CONCURRENCY + 1)
    if used + OTHERS > CONNECTIONS:
        yield f"{used}, and {OTHERS} for others, of {CONNECTIONS}"


@invariant("https://kubernetes.io/docs/tasks/configure-pod-container/security-context/")
def who_may_not_write_has_a_folder(facts: Facts) -> Iterator[str]:
    """With a read-only root Python finds no place for temporary files, and beat none for its schedule."""
    for name, process in facts.processes.items():
        needed = {Path("/", "tmp"), *(Path(file).parent for file in process.option("--schedule", "-s"))}
        if process.folders is not None:
            for folder in needed - set(map(Path, process.folders)):
                yield f"{name} cannot write to {folder}"


@invariant("https://docs.djangoproject.com/en/stable/topics/migrations/")
def migrations_come_first(facts: Facts) -> Iterator[str]:
    """New code must not meet a database that lacks its tables."""
    for name, process in facts.processes.items():
        if not process.after_migrations and "migrate" not in process.command:
            yield f"{name} does not wait for them"


def copy_to(folder: Path) -> Path:
    """Copy what counts of this project there, and not what `.env` says for development."""
    for path in BASE_DIR.iterdir():
        if path.name in PARTS:
            shutil.copytree(path, folder / path.name)
        elif path.is_file() and path.name != ".env":
            shutil.copy(path, folder)
    return folder


def facts_of(folder: Path) -> Facts:
    """Read a project. Its settings are those of what its deployment gives to all processes."""
    found = processes(folder)
    told = {name: value for one in found.values() for name, value in one.environment.items()}
    variables = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(folder),
        "SECRET_KEY": secrets.token_hex(32),
        "DEBUG": "false",
        "ALLOWED_HOSTS": "example.com",
        "DATABASE_URL": "postgres://server/database",
        "BROKER_URL": "{{ 'rediss' if cookiecutter.broker == 'redis' else 'amqps' }}://broker",
        "CACHE_URL": "redis://cache",
        "EMAIL_URL": "console://",
        "DEFAULT_FROM_EMAIL": "one@example.com",
    }
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, cwd=folder, env=told | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Facts(folder, SimpleNamespace(**json.loads(done.stdout)), found)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """This project's own."""
    return facts_of(copy_to(tmp_path_factory.mktemp("project")))


@pytest.mark.parametrize("name", INVARIANTS)
def test_it_holds(name: str, facts: Facts) -> None:
    assert list(INVARIANTS[name].check(facts)) == []


@pytest.mark.parametrize("name", INVARIANTS)
def test_what_breaks_it_is_noticed(name: str, tmp_path: Path) -> None:
    check, link, change = INVARIANTS[name]
    assert check.__doc__
    assert link.startswith("https://")
    file = copy_to(tmp_path) / change.file
    text = file.read_text()
    assert change.old in text, (
        f"{change.file} has changed: change what breaks {name} here, or in deployment.py"
    )
    file.write_text(text.replace(change.old, change.new))
    assert list(check(facts_of(tmp_path)))


def test_every_change_belongs_to_an_invariant() -> None:
    assert CHANGES.keys() <= INVARIANTS.keys()
