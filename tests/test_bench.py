"""`make bench` renews what it is asked to renew in docs/benchmarks.md, and nothing else."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

from scripts.bench import __main__ as bench
from scripts.bench import page

HEADINGS = ["First", "Second", "Third"]
PAGE = """# Benchmarks

How to renew it.

## First

Old.

| a | b |
|-|-|
| 1 | ## 2 |

## Third

Old, too.
"""


def test_renewing_nothing_changes_nothing():
    assert page.renewed(PAGE, HEADINGS, {}) == PAGE
    whole = page.PATH.read_text()
    assert page.renewed(whole, [heading for heading, _ in bench.SECTIONS.values()], {}) == whole


@pytest.mark.parametrize("heading", HEADINGS)
def test_one_section_is_renewed_and_the_others_stay(heading):
    """It takes its place in the order of the page, whether it was there or not."""
    renewed = page.renewed(PAGE, HEADINGS, {heading: "New.\n"})
    head, before = page.parsed(PAGE)
    assert page.parsed(renewed)[0] == head
    after = {name: text.strip() for name, text in page.parsed(renewed)[1].items()}
    assert after == {**{name: text.strip() for name, text in before.items()}, heading: "New."}
    assert list(after) == [name for name in HEADINGS if name in after]
    assert page.renewed(renewed, HEADINGS, {heading: "New.\n"}) == renewed


def test_a_section_that_nobody_prints_any_more_goes():
    assert "Third" not in page.renewed(PAGE, HEADINGS[:2], {})


def test_bench_writes_what_was_measured_and_no_more(monkeypatch, tmp_path):
    """With a figure that costs nothing, in a page of its own."""
    sections = {"one": ("First", lambda projects: "1 s"), "two": ("Second", lambda projects: "2 s")}
    monkeypatch.setattr(bench, "SECTIONS", sections)
    monkeypatch.setattr(page, "PATH", tmp_path / "benchmarks.md")
    page.PATH.write_text("# Benchmarks\n")
    for arguments, expected in ([["two"], {"Second"}], [[], {"First", "Second"}]):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        bench.main()
        assert page.parsed(page.PATH.read_text())[1].keys() == expected
    assert re.search(r"^Printed by `make bench ARGS=two` on \d\d .+ cores, .+\.\n\n2 s$", page.PATH.read_text(), re.M)


def test_every_section_of_the_page_says_how_to_renew_it():
    names = {heading: name for name, (heading, _) in bench.SECTIONS.items()}
    _, sections = page.parsed(page.PATH.read_text())
    assert sections
    for heading, text in sections.items():
        assert text.startswith(f"Printed by `make bench ARGS={names[heading]}` on "), heading


def test_a_section_that_is_not_there_is_refused():
    command = [sys.executable, "-m", "scripts.bench", "probes", "probing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "probing" in done.stderr
    assert "probes, status, outage" in done.stderr
