"""Pages, probes and headers."""

import json
import os
import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from accounts.models import User
from dev.processes import free_port
from tests.brokers import absent_broker
from tests.harness import database_url, eventually
from tests.web import Web, status


@pytest.fixture
def visitor() -> Client:
    """A browser that came by HTTPS, and shows error pages instead of raising."""
    return Client(raise_request_exception=False, headers={"x-forwarded-proto": "https"})


@pytest.mark.django_db
def test_the_landing_page_leads_to_admin_and_health(visitor: Client) -> None:
    page = visitor.get("/", secure=True)
    assert page.status_code == 200
    assert 'href="/admin/"' in page.text
    assert 'href="/readyz"' in page.text


def test_pages_allow_nothing_inline(visitor: Client) -> None:
    policy = visitor.get("/", secure=True).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy


def test_the_favicon_is_found_where_browsers_look(visitor: Client) -> None:
    assert visitor.get("/favicon.ico", secure=True).headers["Location"] == "/static/home/favicon.svg"


def test_an_unknown_address_gets_the_404_page(visitor: Client) -> None:
    page = visitor.get("/no-such-page", secure=True)
    assert page.status_code == 404
    assert "This page does not exist" in page.text


def test_a_crash_gets_the_500_page(visitor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr("home.views.render", crash)
    page = visitor.get("/", secure=True)
    assert page.status_code == 500
    assert "Something broke" in page.text


def test_plain_http_is_sent_to_https(visitor: Client) -> None:
    assert visitor.get("/").headers["Location"] == "https://testserver/"


@pytest.mark.django_db
@pytest.mark.parametrize("probe", ["/livez", "/readyz"])
def test_probes_answer_by_any_name_and_without_tls(probe: str) -> None:
    """An orchestrator asks by address; ALLOWED_HOSTS and the redirect do not apply."""
    answer = Client(headers={"host": "10.1.2.3"}).get(probe)
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_livez_asks_no_database() -> None:
    """pytest-django fails a test that touches the database without the django_db mark."""
    assert Client().get("/livez").status_code == 200


def test_figures_of_all_processes_are_added_up_and_survive_them(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB_CONCURRENCY="2")
    for _ in range(20):
        assert web.get("/")[0] == 200
    assert web.counted() == 20
    for pid in web.pids():
        os.kill(pid, signal.SIGKILL)
        eventually(partial(web.has_replaced, pid), "another process")
    eventually(lambda: status(f"{web.url}/livez") == 200, "an answer")
    assert web.get("/")[0] == 200
    assert web.counted() == 21
    assert web.get("/metrics")[0] == 404  # not on the public port


def test_web_is_not_ready_before_the_database_has_every_migration(start_web: Callable[..., Web]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'jobs'")
    try:
        web = start_web()
        code, text = web.get("/readyz")
        assert code == 503
        assert "jobs.0001_initial" in text
    finally:
        MigrationRecorder(connection).record_applied("jobs", "0001_initial")
    assert web.get("/readyz")[0] == 200


def test_healthz_tells_those_who_may_know_how_each_server_answers(start_web: Callable[..., Web]) -> None:
    web = start_web(HEALTH_TOKEN="open-sesame")
    assert web.get("/healthz")[0] == 404
    assert web.get("/healthz", Authorization="Bearer sesame")[0] == 404
    assert web.get("/healthz", Authorization="open-sesame")[0] == 404
    code, text = web.get("/healthz", Authorization="Bearer open-sesame")
    assert code == 200
    assert {name for name, told in json.loads(text).items() if "milliseconds" in told} == {
        "database",
        "cache",
        "broker",
    }


def test_healthz_names_the_server_that_is_away_and_no_password(
    start_web: Callable[..., Web], tmp_path: Path
) -> None:
    web = start_web(HEALTH_TOKEN="open-sesame", BROKER_URL=absent_broker(tmp_path))
    code, text = web.get("/healthz", Authorization="Bearer open-sesame")
    assert code == 503
    assert "error" in json.loads(text)["broker"]
    assert "milliseconds" in json.loads(text)["database"]
    assert "secret" not in text
    assert web.get("/readyz")[0] == 200  # web serves without it


@pytest.mark.django_db
@pytest.mark.parametrize(("is_staff", "expected"), [(True, 200), (False, 404)])
def test_healthz_is_for_staff(servers: None, visitor: Client, is_staff: bool, expected: int) -> None:
    visitor.force_login(User.objects.create_user("somebody", is_staff=is_staff))
    assert visitor.get("/healthz", secure=True).status_code == expected


@pytest.fixture
def web_without_database() -> Iterator[Web]:
    """A real gunicorn whose database refuses connections."""
    web = Web(WEB_CONCURRENCY="1", DATABASE_URL=f"postgres://app@127.0.0.1:{free_port()}/app")
    yield web
    web.process.terminate()
    web.process.wait()


def test_without_database_web_is_live_but_not_ready_and_stops_soon(web_without_database: Web) -> None:
    url, process = web_without_database.url, web_without_database.process
    assert eventually(lambda: status(f"{url}/livez"), "gunicorn listens") == 200
    assert status(f"{url}/readyz") == 503
    process.terminate()
    assert process.wait(15) == 0  # with the pool left open it takes 20 s on Python 3.13


class Gate(socketserver.ThreadingTCPServer):
    """Leads to the database. Shut, it takes what is said, and says nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of its own, open."""
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.database = urlsplit(database_url())
        self.url = self.database.geturl().replace(f":{self.database.port}/", f":{self.server_address[1]}/")
        self.open = threading.Event()
        self.open.set()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Pass on what either says, while the gate is open."""
        with socket.create_connection((self.database.hostname, self.database.port)) as database:
            back = threading.Thread(target=self.pass_on, args=(database, request))
            back.start()
            self.pass_on(request, database)
            back.join()

    def pass_on(self, source: socket.socket, target: socket.socket) -> None:
        """Copy until either is closed."""
        with suppress(OSError):
            while data := source.recv(65536):
                self.open.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def test_a_database_that_never_answers_makes_web_not_ready_and_holds_up_no_probe(
    start_web: Callable[..., Web],
) -> None:
    with Gate() as gate:
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        web = start_web(WEB_CONCURRENCY="1", WEB_THREADS="1", DATABASE_URL=gate.url)
        assert web.get("/readyz")[0] == 200
        gate.open.clear()
        try:
            for _ in range(2):
                with pytest.raises(HTTPError, match="503"):
                    urlopen(f"{web.url}/readyz", timeout=6)  # what deploy/ grants it
            assert urlopen(f"{web.url}/livez", timeout=1).status == 200
        finally:
            gate.open.set()
        eventually(lambda: status(f"{web.url}/readyz") == 200, "the database to answer again")
        web.process.terminate()
        assert web.process.wait(15) == 0
        gate.shutdown()


@pytest.mark.django_db
def test_the_cache_is_a_real_server() -> None:
    from django.core.cache import cache

    cache.set("colour", "green", timeout=60)
    assert cache.get("colour") == "green"
