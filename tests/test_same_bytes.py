"""The same answers give the same tracked files, so a project can be compared with its template."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, VARIANTS, tracked_files

GIT_NAMES = {f"GIT_{who}_{what}": "tests@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> str:
    """A git repository with this template as it is now, committed or not."""
    folder = tmp_path_factory.mktemp("template") / "cookiecutter-django-celery"
    for path in tracked_files(ROOT):
        if (ROOT / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    for command in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "--message=template"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env={**os.environ, **GIT_NAMES})
    return str(folder)


def test_two_bakes_of_the_same_answers_are_equal(cookies_session, bake):
    first, second = bake(), cookies_session.bake(extra_context={}).project_path
    assert tracked_files(first) == tracked_files(second)
    for path in tracked_files(first):
        assert (first / path).read_bytes() == (second / path).read_bytes(), path
        assert (first / path).stat().st_mode == (second / path).stat().st_mode, path
    assert (first / ".env").read_text() != (second / ".env").read_text(), "two projects share a secret"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fresh_project_does_not_differ_from_its_template(name, clone, tmp_path):
    answers = f"--extra-context={json.dumps(VARIANTS[name])}"
    cruft = [sys.executable, "-m", "cruft"]
    subprocess.run([*cruft, "create", clone, "--no-input", f"--output-dir={tmp_path}", answers], check=True)
    (project,) = tmp_path.iterdir()
    same = subprocess.run([*cruft, "diff", "--exit-code"], cwd=project, capture_output=True, text=True)
    assert same.returncode == 0, same.stdout
    assert "SECRET_KEY" not in (project / ".cruft.json").read_text()
    with (project / "manage.py").open("a") as file:
        file.write("# changed\n")
    changed = subprocess.run([*cruft, "diff", "--exit-code"], cwd=project, capture_output=True, text=True)
    assert changed.returncode == 1
