"""What is rendered reads as if a person had written it for this project alone."""

import ast
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, tracked_files

BINARY = {".png", ".ico"}
LOCKED = "requirements/"


@pytest.fixture(scope="session")
def texts(variant) -> dict[str, str]:
    """Every tracked text file of a variant."""
    return {str(path): (variant / path).read_text() for path in tracked_files(variant) if path.suffix not in BINARY}


def test_no_jinja_of_the_template_is_left(texts):
    for path, text in texts.items():
        assert not re.search(r"cookiecutter|# jinja:|{%-? *(end)?raw", text), path


def test_every_file_parses(texts):
    parsers = {
        ".py": ast.parse,
        ".toml": tomllib.loads,
        ".json": json.loads,
        ".yaml": lambda text: list(yaml.safe_load_all(text)),
        ".yml": lambda text: list(yaml.safe_load_all(text)),
    }
    parsed = [parsers[Path(path).suffix](text) for path, text in texts.items() if Path(path).suffix in parsers]
    assert len(parsed) > 40


def test_ruff_finds_nothing_to_format_or_to_mend(variant):
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=variant, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_blank_lines_and_line_ends_are_tidy(texts):
    for path, text in texts.items():
        if path.startswith(LOCKED) or not text:
            continue
        assert "\n\n\n\n" not in text, path
        assert path.endswith(".py") or "\n\n\n" not in text, path
        assert not text.startswith("\n"), path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path


def test_no_path_name_or_secret_of_the_generating_machine_is_left(texts, variant):
    secret = re.search(r"^SECRET_KEY=(\S{50,})$", (variant / ".env").read_text(), re.MULTILINE)[1]
    for path, text in texts.items():
        for private in (secret, str(ROOT), str(variant.parent), str(Path.home()), socket.gethostname() + "."):
            assert private not in text, path


def test_the_secret_stays_out_of_git_and_of_other_eyes(variant):
    assert Path(".env") not in tracked_files(variant)
    assert (variant / ".env").stat().st_mode & 0o077 == 0


def test_no_cache_or_empty_folder_is_left(variant):
    for path in variant.rglob("*"):
        assert path.name not in {"__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache", ".venv"}
        assert not path.is_dir() or any(path.iterdir()), path


def test_the_map_in_the_readme_leads_to_real_places(variant):
    rows = re.findall(r"^\| (`.+?) \|", (variant / "README.md").read_text(), re.MULTILINE)
    places = [place for row in rows for place in re.findall(r"`([^`]+)`", row)]
    assert len(places) >= 8
    for place in places:
        assert (variant / place).exists(), place


def test_every_python_file_opens_with_what_it_is_for(texts):
    for path, text in texts.items():
        if path.endswith(".py") and "migrations/" not in path:
            assert ast.get_docstring(ast.parse(text)), path
