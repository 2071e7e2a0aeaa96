"""Good answers are rendered as they are, bad ones refused before a file exists."""

import html
import json
import re
import shlex
import subprocess
import sys
import tomllib

import pexpect
import pytest
from conftest import ROOT, VARIANTS, tracked_files

COOKIECUTTER = [sys.executable, "-m", "cookiecutter", str(ROOT)]

# question: (a bad answer, words of the line that refuses it)
REFUSED = {
    "slug with a space": ({"project_slug": "my shop"}, "lowercase letters"),
    "slug with a dash": ({"project_slug": "my-shop"}, "lowercase letters"),
    "slug with capitals": ({"project_slug": "MyShop"}, "lowercase letters"),
    "slug that starts with a digit": ({"project_slug": "1shop"}, "a letter first"),
    "slug that ends with an underscore": ({"project_slug": "shop_"}, "between them"),
    "slug that is too long": ({"project_slug": "s" * 41}, "at most 40"),
    "slug with a newline": ({"project_slug": "shop\n"}, "lowercase letters"),
    "slug that climbs": ({"project_slug": "../shop"}, "lowercase letters"),
    "slug with non-ASCII letters": ({"project_slug": "läden"}, "lowercase letters"),
    "slug that is a keyword": ({"project_slug": "class"}, "keyword"),
    "slug of the standard library": ({"project_slug": "json"}, "standard library"),
    "slug of Django": ({"project_slug": "django"}, "a package that the project installs"),
    "slug of Celery": ({"project_slug": "celery"}, "a package that the project installs"),
    "slug of the project's own": ({"project_slug": "jobs"}, "the project itself"),
    "slug of the project's deploy files": ({"project_slug": "deploy"}, "the project itself"),
    "name of nothing but space": ({"project_name": "  ", "project_slug": "shop"}, "some text"),
    "name with a control character": ({"project_name": "Acme\aShop", "project_slug": "shop"}, "control characters"),
    "author with a control character": ({"author_name": "A\x7fB"}, "control characters"),
    "domain that is an address": ({"domain_name": "1.2.3.4"}, "host name"),
    "domain with a scheme": ({"domain_name": "https://example.com"}, "without https://"),
    "domain with a port": ({"domain_name": "example.com:80"}, "without https://"),
    "domain without a dot": ({"domain_name": "localhost"}, "with a dot"),
    "domain with an underscore": ({"domain_name": "my_shop.example.com"}, "host name"),
    "domain with an empty label": ({"domain_name": "shop..com"}, "host name"),
    "domain with a dash at an edge": ({"domain_name": "-shop.com"}, "host name"),
    "domain with a newline": ({"domain_name": "example.com\nevil: true"}, "host name"),
    "domain that is code": ({"domain_name": '"""; import os'}, "host name"),
}

HOSTILE_TEXTS = [
    'Says "hi"',
    "It's",
    'Triple """ quotes',
    r"Back\slash \n \" \u0041",
    "# not a comment",
    "{% raw %}# jinja: if true{% endraw %}",
    "<script>alert(1)</script> & co",
    "Zażółć gęślą 日本語 🐜",
    "${HOME} $(id) `id` %d %(x)s",
    "--- yaml: [tricks",
    "{% raw %}{{ 7 * 7 }} {% now 'Y' %} {# gone #}{% endraw %}",
]


def cookiecut(folder, **answers):
    """Run cookiecutter as a person's shell would."""
    return subprocess.run(
        [*COOKIECUTTER, "--no-input", "--output-dir", folder, *(f"{name}={value}" for name, value in answers.items())],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_answer_is_refused_with_a_plain_line_and_leaves_nothing(case, tmp_path):
    answers, expected = REFUSED[case]
    done = cookiecut(tmp_path, **answers)
    assert done.returncode != 0
    question = next(iter(answers))
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{question}: got ")]
    assert len(lines) == 1, done.stderr
    assert repr(answers[question]) in lines[0]
    assert expected in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_slug_leaves_nothing(tmp_path):
    """Cookiecutter itself refuses it, before it asks the hook."""
    assert cookiecut(tmp_path, project_slug="").returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_all_bad_answers_are_named_at_once_before_anything_else(tmp_path):
    done = cookiecut(tmp_path, project_slug="import", domain_name="nowhere", author_name=" ")
    refused = [line.partition(":")[0] for line in done.stderr.splitlines()[:3]]
    assert sorted(refused) == ["author_name", "domain_name", "project_slug"]


@pytest.mark.parametrize("question", ["django", "broker", "deploy", "ci"])
def test_an_unknown_choice_is_refused(question, tmp_path):
    done = cookiecut(tmp_path, **{question: "pigeon"})
    assert done.returncode != 0
    assert "pigeon" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_choice_in_a_replay_is_refused_by_the_hook(bake, tmp_path):
    """Cookiecutter trusts a replay file, so the hook looks again."""
    context = json.loads((ROOT / "cookiecutter.json").read_text())
    answers = {name: value[0] if isinstance(value, list) else value for name, value in context.items()}
    answers |= {"project_slug": "shop", "broker": "pigeon", "_template": str(ROOT)}
    answers |= {name: "x" for name in answers if name.startswith("__") and name != "__prompts__"}
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps({"cookiecutter": answers}))
    output = tmp_path / "output"
    output.mkdir()
    done = subprocess.run(
        [*COOKIECUTTER, "--replay-file", replay, "--output-dir", output], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "broker: got 'pigeon', expected one of redis, rabbitmq." in done.stderr
    assert list(output.iterdir()) == []


def shown(text):
    """Return how the template shows a text: white space is folded."""
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_text_is_rendered_as_it_is(text, bake):
    project = bake(project_name=text, project_slug="hostile", description=text, author_name=text)
    literal = re.sub(r"{%-? *(end)?raw *-?%}", "", text)
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert metadata["description"] == literal
    assert metadata["authors"] == [{"name": literal}]
    assert (project / "README.md").read_text().startswith(f"# {literal}\n\n{literal}\n")
    page = (project / "home/templates/home/home.html").read_text()
    assert "{{ 7" not in page
    assert literal in html.unescape(page)
    assert "<script>" not in page


def test_newlines_in_a_name_become_spaces(bake):
    project = bake(project_name="Acme\nShop\r\n  & Sons", project_slug="lines", author_name="A\nB")
    assert (project / "README.md").read_text().startswith("# Acme Shop & Sons\n")
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["authors"] == [{"name": "A B"}]


def test_a_name_typed_at_the_prompt_is_not_rendered(tmp_path):
    """On the command line cookiecutter itself renders an answer; typed ones it leaves alone, and so do we."""
    command = [*COOKIECUTTER, "--output-dir", str(tmp_path)]
    with pexpect.spawn(command[0], command[1:], encoding="utf-8", timeout=60) as terminal:
        terminal.expect("as people read it")
        terminal.sendline("{{ 7 * 7 }} # Ants")
        terminal.expect("The folder's name")
        terminal.sendline("ants")
        for question in ("what the project is for", "Who owns", "host name in production"):
            terminal.expect(question)
            terminal.sendline("")
        for question in ("Which Django", "Which broker", "Where production runs", "Who runs"):
            terminal.expect(question)
            terminal.sendline("1")
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 0
    assert (tmp_path / "ants/README.md").read_text().startswith("# {{ 7 * 7 }} # Ants\n")
    assert "&#123;&#123; 7 * 7 }} # Ants" in (tmp_path / "ants/home/templates/home/home.html").read_text()


def test_make_new_says_what_to_type_next(tmp_path):
    arguments = "--no-input project_name='Acme Shop' broker=rabbitmq"
    done = subprocess.run(
        ["make", "new", f"OUT={tmp_path}/it's here", f"ARGS={arguments}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    change_folder, start = re.search(r"^Next:\n\n  (cd .+)\n  (.+)$", done.stdout, re.MULTILINE).groups()
    project = tmp_path / "it's here/acme_shop"
    assert (ROOT / shlex.split(change_folder)[1]).resolve() == project
    assert start == "make up"
    assert (project / "dev/rabbitmq.py").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("project_slug=import", "project_slug: got 'import'"), ("broker=pigeon", "pigeon")],
)
def test_make_new_refuses_without_a_traceback(arguments, expected, tmp_path):
    done = subprocess.run(
        ["make", "new", f"OUT={tmp_path}", f"ARGS=--no-input {arguments}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_changes_only_a_value_changes_no_line_of_code(bake):
    default, other = bake(), bake(**VARIANTS["other-names"])
    assert tracked_files(default) == tracked_files(other)
    code = [path for path in tracked_files(default) if path.suffix in {".py", ".css"} or path.name in {"Makefile"}]
    assert len(code) > 40
    for path in code:
        assert (default / path).read_bytes() == (other / path).read_bytes(), path


def test_the_slug_is_imported_nowhere(bake):
    project = bake(project_name="Zebra Crossing")
    assert project.name == "zebra_crossing"
    for path in project.rglob("*.py"):
        assert "zebra" not in path.read_text().lower(), path
