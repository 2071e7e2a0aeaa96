"""The pages of a generated project as a person sees them, in headless Chromium."""

import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from processes import PATIENCE, Up, copy_project, eventually, open_folder

pytestmark = pytest.mark.slow

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def up(install):
    """A generated project that runs."""
    with open_folder() as room:
        with Up(copy_project(install(), room / "project")) as up:
            yield up.ready()
            up.interrupt()


@pytest.fixture(scope="module")
def production(up):
    """The address of gunicorn with the settings of production, as a proxy that ends TLS sees it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DEBUG": "false",
        "BEHIND_TLS_PROXY": "true",
        "ALLOWED_HOSTS": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    manage(up, "collectstatic", "--noinput", environment=environment)
    serve = [up.project / ".venv/bin/python", "-m", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi"]
    with (up.project / "gunicorn.log").open("w") as log:
        server = subprocess.Popen(serve, cwd=up.project, env=environment, stdout=log, stderr=log)
    try:
        eventually(lambda: is_alive(port) or server.poll() is not None, "an answer of gunicorn")
        assert server.poll() is None, (up.project / "gunicorn.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def manage(up, *arguments, environment=None):
    """Run manage.py in the project, on the servers that run."""
    command = [up.project / ".venv/bin/python", "manage.py", *arguments]
    subprocess.run(command, cwd=up.project, env=environment, check=True, capture_output=True)


def is_alive(port):
    """Whether a web process answers there."""
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=PATIENCE).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def chromium():
    """A browser of this machine. Playwright's own would be a download that no package registry has."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if not program:
        pytest.skip(f"none of {', '.join(names)} is on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Return a function that gives an empty page, with `problems` that collects what the browser complains about."""
    contexts = []

    def visit(**options):
        contexts.append(context := chromium.new_context(**options))
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.problems = []

        def note(problem, url):
            # Chromium asks for this one by itself on pages that name no icon: JSON, the admin.
            if not url.endswith("/favicon.ico"):
                page.problems.append(f"{problem}: {url}")

        page.on("console", lambda message: note(f"{message.type} {message.text}", message.location["url"]))
        page.on("pageerror", lambda error: note(f"error {error}", page.url))
        page.on("requestfailed", lambda request: note("failed", request.url))
        page.on("response", lambda answer: answer.status < 400 or note(answer.status, answer.url))
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    """A folder for pictures, to look at after a change of the pages."""
    return tmp_path_factory.mktemp("screenshots")


@contextmanager
def stopped(pids):
    """Have these processes stand still meanwhile."""
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def is_wider_than_the_screen(page):
    """Whether one has to scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def log_in(page, up):
    """Log in to the admin with the password that was printed."""
    page.goto(f"{up.url}/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(up.password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def background(page):
    """The colour of the page, as numbers from 0 to 255."""
    return [int(part) for part in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))]


def test_the_landing_page_shows_the_ways_in_and_the_browser_has_no_complaint(up, visit):
    """It is the first thing that a new developer sees: no console error, no violated Content-Security-Policy."""
    page = visit(viewport=DESKTOP)
    answer = page.goto(f"{up.url}/", wait_until="networkidle")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert page.title() == "Acme Shop"
    assert page.get_by_role("heading", level=1).inner_text() == "Acme Shop"

    style = page.locator("link[rel=stylesheet]").evaluate("link => link.sheet.cssRules.length")
    assert style > 10
    icon = page.request.get(page.locator("link[rel=icon]").evaluate("link => link.href"))
    assert icon.status == 200
    assert icon.headers["content-type"] == "image/svg+xml"
    assert icon.text().startswith("<svg")
    assert page.problems == []

    page.get_by_role("link", name="Health").click()
    assert page.url == f"{up.url}/readyz"
    assert '"status": "ok"' in page.content()
    page.go_back()
    page.get_by_role("link", name="Admin").click()
    page.get_by_label("Username").wait_for()
    assert page.url == f"{up.url}/admin/login/?next=/admin/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_landing_page_fits_the_screen_and_follows_the_colour_scheme(up, visit, screenshots, size, scheme):
    """A page that is too wide or blinding looks broken, whatever it says."""
    page = visit(viewport=size, color_scheme=scheme)
    page.goto(f"{up.url}/", wait_until="networkidle")
    page.screenshot(path=screenshots / f"landing-{size['width']}-{scheme}.png")
    assert not is_wider_than_the_screen(page)
    brightness = sum(background(page)[:3]) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60
    assert page.problems == []


def test_a_report_that_is_added_in_the_admin_is_finished_by_a_worker(up, visit, screenshots):
    """Web, broker, worker and database together, seen from the outside."""
    page = visit(viewport=DESKTOP)
    log_in(page, up)
    page.get_by_role("link", name="Reports", exact=True).click()
    page.get_by_role("link", name="Add report").first.click()
    page.get_by_label("Title").fill("Seen in a browser")
    page.get_by_role("button", name="Save", exact=True).click()
    assert "was added successfully" in page.locator(".messagelist").inner_text()
    row = page.get_by_role("row").filter(has_text="Seen in a browser")

    def is_finished():
        page.reload()
        return row.locator(".field-finished_at").inner_text() not in {"", "-"}

    eventually(is_finished, "the time at which the report was finished")
    assert row.locator(".field-attempts").inner_text() == "1"
    page.screenshot(path=screenshots / "admin.png")
    assert page.problems == []


def open_status(page, up):
    """Log in and follow the link to the status page."""
    log_in(page, up)
    page.get_by_role("link", name="Status", exact=True).click()
    page.get_by_role("heading", level=1, name="Status").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_status_page_is_readable_by_everybody(up, visit, screenshots, size, scheme):
    """On every screen, and to assistive technology: axe finds nothing in what this project adds to the admin."""
    page = visit(viewport=size, color_scheme=scheme)
    open_status(page, up)
    page.get_by_text("Nothing is wrong").wait_for()
    page.locator("svg.plot").first.wait_for()
    page.screenshot(path=screenshots / f"status-{size['width']}-{scheme}.png", full_page=True)
    assert not is_wider_than_the_screen(page)
    found = Axe().run(page, context="#content")
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 5
    assert page.problems == []


def test_the_status_page_renews_itself_and_says_when_it_cannot(up, visit, screenshots):
    """Nobody must take figures of the past for those of now: not when a process is silent, nor without the server."""
    page = visit(viewport=DESKTOP)
    open_status(page, up)
    moment, lost = page.locator("#status-at"), page.locator("#status-lost")
    first = moment.inner_text()
    eventually(lambda: moment.inner_text() != first, "the page to renew itself")
    assert not lost.is_visible()
    page.get_by_role("button", name="Pause").click()
    with stopped(up.pids("manage.py exporter")):
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("Unknown: The exporter is silent.").wait_for()
        assert page.get_by_role("row", name=re.compile("^celery")).first.get_by_text("?").count() == 2
        page.screenshot(path=screenshots / "status-unknown.png", full_page=True)
        found = Axe().run(page, context="#content")
        assert found.violations_count == 0, found.generate_report()
    page.get_by_text("Nothing is wrong").wait_for()
    assert page.problems == []

    page.context.set_offline(True)
    lost.wait_for()
    assert moment.inner_text() in lost.inner_text()
    assert Axe().run(page, context="#content").violations_count == 0
    page.context.set_offline(False)
    lost.wait_for(state="hidden")


def check_error_page(page, url, status, heading, screenshots):
    """See that the page is the project's own, and that it shows nothing of the inside."""
    answer = page.goto(url, wait_until="networkidle")
    page.screenshot(path=screenshots / f"{status}-{page.viewport_size['width']}.png")
    assert answer.status == status
    assert page.get_by_role("heading", level=1).inner_text() == heading
    assert page.get_by_role("link", name="Go to the front page").get_attribute("href") == "/"
    assert background(page) == [246, 247, 245], "the page is not styled"
    assert not is_wider_than_the_screen(page)
    for inside in ("Traceback", "ProgrammingError", "DEBUG", "jobs_report", "urlpatterns"):
        assert inside not in page.content()
    # The browser complains of the page itself, and of nothing else.
    assert [problem for problem in page.problems if "Failed to load resource" not in problem] == [f"{status}: {url}"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_production_shows_its_own_page_when_there_is_none(production, visit, screenshots, size):
    """A visitor with a mistyped address finds the way back."""
    page = visit(viewport=size, extra_http_headers={"X-Forwarded-Proto": "https"})
    check_error_page(page, f"{production}/no-such-page", 404, "This page does not exist", screenshots)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_production_shows_its_own_page_when_something_broke(up, production, visit, screenshots, size):
    """As after a release whose migrations did not run. The page must work when little else does."""
    page = visit(viewport=size, extra_http_headers={"X-Forwarded-Proto": "https"})
    log_in(page, up)  # the same database and SECRET_KEY, so the session holds in production too
    manage(up, "migrate", "jobs", "zero")
    try:
        page.problems.clear()
        check_error_page(page, f"{production}/admin/jobs/report/", 500, "Something broke on our side", screenshots)
    finally:
        manage(up, "migrate")
