"""docs/benchmarks.md: sections below headings, each with the line that says when and where it was printed."""

import datetime
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docs" / "benchmarks.md"


def parsed(text):
    """Return what stands above the first heading of a page, and a dictionary of the sections' texts by heading."""
    head, *rest = re.split(r"^## (.+)\n+", text, flags=re.MULTILINE)
    return head, dict(zip(rest[::2], rest[1::2], strict=True))


def renewed(text, headings, measured):
    """Return the page with the measured sections, {heading: text}, in the order of `headings`, and no others."""
    head, sections = parsed(text)
    sections |= measured
    parts = [f"## {heading}\n\n{sections[heading].strip()}\n" for heading in headings if heading in sections]
    return "\n".join([head.strip() + "\n", *parts])


def section(name, text):
    """Return the text of a section below the line that says how, when and where it was printed."""
    today = f"{datetime.datetime.now(datetime.UTC):%d %B %Y}"
    return f"Printed by `make bench ARGS={name}` on {today}: {machine()}.\n\n{text.strip()}\n"


def machine():
    """Return the machine's size and the versions that matter, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, cookiecutter {version('cookiecutter')}, uv {version('uv')}"
    )


def table(columns, rows):
    """Return a table, from the names of its columns and rows of texts."""
    lines = [columns, *rows]
    lines = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines]
    return "\n".join([lines[0], "|-" * len(columns) + "|", *lines[1:]])


def missed(is_missed):
    """Return what is added to an aim that was missed."""
    return ", missed" if is_missed else ""
