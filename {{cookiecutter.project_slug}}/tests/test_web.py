"""Pages, probes and headers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from django.test import Client

from dev import BASE_DIR
from dev.processes import free_port
from tests.harness import eventually


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


def status(url: str) -> int | None:
    """Return the status of a page, None while nobody listens."""
    try:
        with urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return None


@pytest.fixture
def web_without_database() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real gunicorn whose database refuses connections: its URL and process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi"],
        cwd=BASE_DIR,
        env={
            **os.environ,
            "PORT": str(port),
            "WEB_CONCURRENCY": "1",
            "DATABASE_URL": f"postgres://app@127.0.0.1:{free_port()}/app",
        },
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}", process
    process.kill()
    process.wait()


def test_without_database_web_is_live_but_not_ready_and_stops_soon(
    web_without_database: tuple[str, subprocess.Popen[bytes]],
) -> None:
    url, process = web_without_database
    assert eventually(lambda: status(f"{url}/livez"), "gunicorn listens") == 200
    assert status(f"{url}/readyz") == 503
    process.terminate()
    assert process.wait(15) == 0  # with the pool left open it takes 20 s on Python 3.13


@pytest.mark.django_db
def test_the_cache_is_a_real_server() -> None:
    from django.core.cache import cache

    cache.set("colour", "green", timeout=60)
    assert cache.get("colour") == "green"
