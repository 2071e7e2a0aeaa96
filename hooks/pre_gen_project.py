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
    "a package that the project installs": {"celery", "django", "kombu", "redis", "psycopg", "environs"},
    "a package of the project itself": {"accounts", "config", "dev", "health", "home", "jobs", "tests"},
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
    if len(domain) > 253 or len(labels) < 2 or not all(map(DOMAIN_LABEL.fullmatch, labels)):
        return "a lowercase host name with a dot, such as shop.example.com, without https:// and port"
    return None


def problems():
    """Yield (question, what would be accepted) for each bad answer."""
    for question in ("project_name", "description", "author_name"):
        if not ANSWERS[question].strip():
            yield question, "some text"
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
