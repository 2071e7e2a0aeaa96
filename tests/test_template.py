"""The template's own files."""

import ast
import json
import re
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from conftest import ROOT, TEMPLATE, tracked_files

CONTEXT = json.loads((ROOT / "cookiecutter.json").read_text())
QUESTIONS = {name: value for name, value in CONTEXT.items() if not name.startswith("_")}
PRE, POST = (ROOT / f"hooks/{name}_gen_project.py" for name in ("pre", "post"))


def constant(path, name):
    """Return the value of a module's constant, as source."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return node.value
    raise LookupError(name)


def test_at_least_95_percent_of_the_python_files_are_python_before_they_are_rendered():
    files = [path for path in tracked_files(ROOT) if path.suffix == ".py" and path.parts[0] == TEMPLATE.name]
    good = 0
    for path in files:
        source = (ROOT / path).read_bytes()
        options = ["--isolated", "--line-length=110", "--no-cache", "--stdin-filename", str(path), "-"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--check", *options], input=source, capture_output=True
        )
        good += done.returncode == 0
    assert len(files) > 40
    assert good >= 0.95 * len(files), f"{good} of {len(files)}"


def test_every_question_and_choice_says_what_it_adds():
    prompts = CONTEXT["__prompts__"]
    assert prompts.keys() == QUESTIONS.keys()
    for question, answers in QUESTIONS.items():
        if isinstance(answers, list):
            assert set(answers) == prompts[question].keys() - {"__prompt__"}, question


def test_the_hook_knows_the_same_choices():
    choices = ast.literal_eval(constant(PRE, "CHOICES"))
    assert choices == {question: answers for question, answers in QUESTIONS.items() if isinstance(answers, list)}


def test_the_hook_refuses_every_folder_of_the_project_as_a_slug():
    taken = (ROOT / "hooks/pre_gen_project.py").read_text()
    folders = {path.name for path in TEMPLATE.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert len(folders) > 8
    for folder in folders:
        assert f'"{folder}"' in taken, folder


def test_links_in_the_documents_lead_to_real_files():
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]
    links = [(page, link) for page in documents for link in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    local = [(page, link) for page, link in links if "://" not in link]
    assert len(local) >= 3
    for page, link in local:
        assert (page.parent / link).exists(), (page, link)


def test_no_prune_entry_is_stale():
    paths = [ast.literal_eval(key) for key in constant(POST, "PRUNE").keys]
    assert len(paths) > 5
    for path in paths:
        assert (TEMPLATE / path).exists(), path


def test_every_prune_entry_goes_in_one_variant_and_stays_in_another(bake):
    paths = [ast.literal_eval(key) for key in constant(POST, "PRUNE").keys]
    projects = [bake(**{question: answer}) for question in ("deploy", "ci", "broker") for answer in QUESTIONS[question]]
    for path in paths:
        if not path.startswith("requirements/django-"):
            assert {(project / path).exists() for project in projects} == {True, False}, path


def test_exactly_the_files_without_jinja_are_copied_without_rendering():
    """Copying is faster, and a file that is copied by mistake keeps its Jinja."""
    patterns = CONTEXT["_copy_without_render"]
    rendered, copied = [], []
    for path in (path.relative_to(TEMPLATE.name) for path in tracked_files(ROOT) if path.parts[0] == TEMPLATE.name):
        names = [str(path), *map(str, path.parents)]
        is_copied = any(fnmatch(name, pattern) for name in names for pattern in patterns)
        speaks_jinja = re.search(r"{{.*cookiecutter|# jinja:|{% raw %}", f"{path}\n{(TEMPLATE / path).read_text()}")
        (copied if is_copied else rendered).append((str(path), bool(speaks_jinja)))
    assert [path for path, speaks_jinja in copied if speaks_jinja] == []
    assert [path for path, speaks_jinja in rendered if not speaks_jinja] == []


@pytest.mark.parametrize("hook", [PRE, POST], ids=["pre", "post"])
def test_hooks_need_nothing_but_the_standard_library(hook):
    """So generation needs cookiecutter alone: no network, git, uv or docker."""
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(hook.read_text()))
        if isinstance(node, ast.Import)
        for name in node.names
    } | {node.module for node in ast.walk(ast.parse(hook.read_text())) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"json", "keyword", "os", "re", "sys"}
    assert len(hook.read_text().splitlines()) < 75


def test_generation_works_with_no_other_program_on_the_path(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--output-dir", tmp_path],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "acme_shop/manage.py").exists()


@pytest.mark.parametrize("folder", [ROOT, TEMPLATE], ids=["tools", "project"])
def test_requirements_are_pinned_by_hash_and_name_no_server(folder):
    files = sorted(folder.glob("requirements/**/*.txt"))
    assert len(files) >= 3
    for path in files:
        text = path.read_text()
        assert "://" not in text, path
        assert "--index-url" not in text, path
        pins = re.findall(r"^[a-z0-9][\w.-]*(?:\[[\w,]+\])?==\S+.*\\$", text, re.MULTILINE)
        entries = re.findall(r"^[a-z0-9].*", text, re.MULTILINE)
        assert pins == entries, path
