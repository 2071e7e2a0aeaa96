"""Drive a generated project as a person does: a terminal with `make up` and Ctrl-C, pages, cookies and forms."""

import html
import io
import os
import re
import shutil
import signal
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar
from pathlib import Path

import pexpect
import psutil

PATIENCE = 180  # seconds; an upper bound against hangs, not an expectation
MARK = "MAKE_UP_TEST"  # every process inherits this variable, whatever it is called and whoever its parent is
WEB, WORKER, BEAT = "manage.py runserver", "-A config worker", "-A config beat"


def eventually(condition, what):
    """Return the first true value of `condition`; AssertionError when there is none within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)
    return value


@contextmanager
def open_folder():
    """Give an empty folder that every user can enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="room-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def copy_project(source, target):
    """Copy a project, with its virtual environment if it has one, and without its data; return `target`."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".local", "__pycache__"))
    if (source / ".venv").exists():
        shutil.copytree(source / ".venv", target / ".venv", symlinks=True, copy_function=_link_or_copy)
    return target


def _link_or_copy(source, target):
    """Link the file, which takes no time; copy it where the folders are on two file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _heed_the_terminal():
    """Ctrl-C and a closed window work, also where these tests run in a shell's background, or under nohup."""
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


class Up:
    """A command, `make up` unless another is given, in a terminal of its own. What it leaves is killed at the end."""

    def __init__(self, project, *command, cwd=None, **environment):
        self.project = Path(project).resolve()
        assert (self.project / "manage.py").exists(), f"{project} is not a generated project"
        self.mark = uuid.uuid4().hex
        self.log = io.StringIO()
        program, *arguments = command or ("make", "up")
        self.terminal = pexpect.spawn(
            program,
            list(map(str, arguments)),
            cwd=cwd or self.project,
            env={**os.environ, **environment, MARK: self.mark},
            encoding="utf-8",
            codec_errors="replace",
            timeout=PATIENCE,
            dimensions=(40, 250),
            preexec_fn=_heed_the_terminal,
        )
        self.terminal.logfile_read = self.log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Only what carries the mark: a process that merely works in the folder may be anybody's.
        for process in psutil.process_iter():
            if self._is_marked(process):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.terminal.close(force=True)

    @property
    def output(self):
        """All that was printed so far, as a person reads it."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.getvalue()).replace("\r\n", "\n")

    @property
    def password(self):
        """The password that was printed for `admin`, None when none was."""
        found = re.search(r"as admin with the password (\S+)  \(shown only this once\)", self.output)
        return found and found[1]

    @property
    def url(self):
        """The address that was printed, without the last slash."""
        return re.search(r"(http://127\.0\.0\.1:\d+)/ +Ctrl-C stops everything", self.output)[1]

    def expect(self, pattern):
        """Return once something new that matches is printed."""
        try:
            self.terminal.expect(pattern)
        except (pexpect.EOF, pexpect.TIMEOUT) as error:
            raise AssertionError(f"{pattern!r} was not printed:\n{self.output}") from error

    def ready(self):
        """Return self once the address is printed, the web process answers and the worker takes tasks."""
        self.expect("Ctrl-C stops everything")
        self.expect(r"celery@\S+ ready")
        eventually(self.answers, f"an answer at {self.url}")
        return self

    def answers(self):
        """Whether the web process answers."""
        try:
            return Person(self.url).get("/livez")[0] == 200
        except OSError:
            return False

    def end(self):
        """Return the exit status once it ended by itself: minus the signal's number when it died of one."""
        self.expect(pexpect.EOF)
        self.terminal.close()
        return -self.terminal.signalstatus if self.terminal.signalstatus else self.terminal.exitstatus

    def interrupt(self):
        """Press Ctrl-C and return the exit status."""
        self.terminal.sendintr()
        return self.end()

    def close_terminal(self):
        """Close the window."""
        self.terminal.ptyproc.fileobj.close()

    def processes(self, text=""):
        """Return the running processes that belong to this run, or work in the project, or name it.

        PostgreSQL's children overwrite their environment, so that the folder is what shows them.
        """
        note = self.project / ".local" / "outside"
        folders = [str(self.project), *([note.read_text().strip()] if note.exists() else [])]
        return [
            process
            for process in psutil.process_iter()
            if self._belongs(process, folders) and text in " ".join(_ask(process.cmdline) or [])
        ]

    def _belongs(self, process, folders):
        if _ask(process.status) in {None, psutil.STATUS_ZOMBIE}:
            return False
        if self._is_marked(process):
            return True
        places = [_ask(process.cwd) or "", *(_ask(process.cmdline) or [])]
        return any(folder in place for folder in folders for place in places)

    def _is_marked(self, process):
        return (_ask(process.environ) or {}).get(MARK) == self.mark

    def pids(self, text):
        """Return the pids of the running processes with `text` in the command line; the reloaders are left out."""
        return {process.pid for process in self.processes(text) if "watchfiles" not in _ask(process.cmdline)}


def _ask(question):
    """Return the answer, or None when the process is gone or belongs to somebody else."""
    try:
        return question()
    except psutil.Error:
        return None


class Person:
    """Somebody who visits pages, keeps the cookies and fills in forms."""

    def __init__(self, url):
        self.url = url
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path, data=None):
        """Return the status and the text, after redirects."""
        request = urllib.request.Request(self.url + path, data, {"Referer": self.url + path})
        try:
            with self.opener.open(request, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def submit(self, path, **fields):
        """Fill in the form of this page; return the page that follows."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path)[1])[1]
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
        status, text = self.get(path, data)
        assert status == 200
        return text

    def log_in(self, password):
        """Log in to the admin; return self."""
        page = self.submit("/admin/login/?next=/admin/", username="admin", password=password)
        assert "Log out" in page
        return self

    def add_report(self, title, seconds=0.2):
        """Add a report in the admin, which sends the task that writes it."""
        assert "was added successfully" in self.submit("/admin/jobs/report/add/", title=title, seconds=seconds)

    def reports(self):
        """Return what the admin's list shows: {title: (attempts, finished at)}."""
        _, page = self.get("/admin/jobs/report/")
        cells = r'field-title"><a [^>]*>(.*?)</a>.*?field-attempts">(.*?)</td>.*?field-finished_at[^>]*>(.*?)</td>'
        return {html.unescape(title): rest for title, *rest in re.findall(cells, page, re.DOTALL)}

    def is_finished(self, title):
        """Whether the list shows the report with the time at which a worker finished it."""
        return self.reports()[title][1] not in {"", "-"}
