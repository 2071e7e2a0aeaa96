"""Refuse bad answers before a file exists: all of them at once, one plain line each."""

import json
import keyword
import re
import sys

# Data, whatever the answers contain: nothing of them is pasted into code.
ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
CHOICES = {
    "django": ["5.2", "6.1"],
    "broker": ["redis", "rabbitmq"],
    "deploy": ["compose", "kubernetes", "systemd", "heroku"],
    "ci": ["github", "gitlab", "none"],
}
# No code imports the slug, but a folder of this name on sys.path would hide the real package.
TAKEN = {
    "Python's standard library": sys.stdlib_module_names,
    "a package that the project installs": {
        *("amqp", "billiard", "celery", "csp", "django", "environs", "flower", "gunicorn", "honcho", "kombu"),
        *("mypy", "opentelemetry", "prometheus_client", "psycopg", "pytest", "redis", "ruff", "structlog", "uv"),
        *("vine", "watchfiles", "whitenoise"),
    },
    "the project itself": {
        *("accounts", "config", "deploy", "dev", "docs", "faults", "health", "home", "jobs"),
        *("metrics", "monitoring", "reliability", "requirements", "status", "tests"),
    },
}
DOMAIN_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def problem_with_slug(slug):
    """Return what is wrong with project_slug, or None."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", slug) or len(slug) > 40:
        return "at most 40 lowercase letters, digits and single underscores between them, a letter first"
    if keyword.iskeyword(slug):
        return "a word that is not a keyword of Python"
    for owner, names in TAKEN.items():
        if slug in names:
            return f"another name: this one belongs to {owner}"
    return None


def problem_with_domain(domain):
    """Return what is wrong with domain_name, or None."""
    labels = domain.split(".")
    names = all(map(DOMAIN_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    if not names or len(domain) > 253 or len(labels) < 2:
        return "a lowercase host name with a dot, such as shop.example.com, without https:// and port"
    return None


def problems():
    """Yield (question, what would be accepted) for each bad answer."""
    for question in ("project_name", "description", "author_name"):
        words = " ".join(ANSWERS[question].split())
        if not words or not words.isprintable():
            yield question, "some text, without control characters"
    if expected := problem_with_slug(ANSWERS["project_slug"]):
        yield "project_slug", expected
    if expected := problem_with_domain(ANSWERS["domain_name"]):
        yield "domain_name", expected
    for question, choices in CHOICES.items():
        if ANSWERS[question] not in choices:
            yield question, "one of " + ", ".join(choices)


refused = [f"{question}: got {ANSWERS[question]!r}, expected {expected}." for question, expected in problems()]
if refused:
    sys.exit("\n".join(refused))
