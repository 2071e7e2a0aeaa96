"""Write docs/faults.md from what was measured. `make faults-full` does; nobody edits that file."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from dev import BASE_DIR
from faults import profiles, results

FILE = BASE_DIR / "docs" / "faults.md"
INTRODUCTION = """\
# What faults do to tasks

Written by `make faults-full`, which kills and freezes real processes; never edited by hand. Each scenario
is a test in `faults/`, proves that its fault happened, and counts from PostgreSQL what the tasks have done.

*Lost*: taken by the broker, and gone without a trace. *Held*: still in the broker when we stopped looking,
so it may come back later, on Redis after the visibility timeout. *Run twice*: finished more than once.
*Seconds*: from the fault until everything had finished. The limits are those of the tests: tasks of some
seconds, and on Redis a visibility timeout of 9 s; yours are longer, and so is what follows from them.
"""


def write(broker: str, server: str, rows: Sequence[results.Row], mutations: Sequence[list[str]]) -> Path:
    """Write the part of this broker, and keep that of the other one. Return the file.

    `mutations` are triples: what is missing, the fault, and its outcome.
    """
    parts = (
        dict(re.findall(r"^(## \w+)\n(.*?)(?=^## |\Z)", FILE.read_text(), re.M | re.S))
        if FILE.exists()
        else {}
    )
    parts[f"## {broker}"] = "\n" + "\n".join([conditions(server), "", *tables(rows, mutations)]) + "\n"
    text = "\n".join([INTRODUCTION, *(f"{title}\n{parts[title].rstrip()}\n" for title in sorted(parts))])
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
    return FILE


def conditions(server: str) -> str:
    """Return when, where and with what this was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "django"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, `make faults-full`, {os.cpu_count()} cores, {memory:.0f} GB, "
        f"{platform.system()}, Python {platform.python_version()}, {packages}, {server}."
    )


def tables(rows: Sequence[results.Row], mutations: Sequence[list[str]]) -> list[str]:
    """Return three tables: ours, the comparison, and what each setting is worth."""
    ours = [row for row in rows if row.profile == "ours"]
    outcomes = {(row.fault, row.profile): row.outcome for row in rows}
    own = [number for number, cell in enumerate(results.HEAD) if cell not in ("Broker", "Settings")]
    compared = ["Fault", "This project", "Celery's defaults", "[vinta]"]
    return [
        *table(
            [results.HEAD[number] for number in own], [[row.cells[number] for number in own] for row in ours]
        ),
        "The same faults, in the same run, with other settings:\n",
        *table(
            compared,
            [
                [row.fault, *(outcomes.get((row.fault, name), "") for name in ("ours", *profiles.COMPARED))]
                for row in ours
            ],
        ),
        "[vinta]: https://github.com/vintasoftware/django-react-boilerplate\n",
        "Each setting taken away alone (`reset`) or changed (`set`), each switch turned off, and what\n"
        "became of the scenario that must fail then:\n",
        *table(["Mutation", "Fault", "Outcome"], mutations),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown, and an empty line."""
    return [*(f"| {' | '.join(cells)} |" for cells in (head, ["-"] * len(head), *rows)), ""]
