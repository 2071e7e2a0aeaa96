"""`make bench`: measure, and write docs/benchmarks.md. Every figure there was printed by this program.

`make bench ARGS="watching probes"` renews these sections, and leaves the others as they are. A section is a heading and
a function that takes the generated projects and returns the text below its heading.
"""

import sys

from scripts.bench import page
from scripts.bench.projects import generated_projects
from scripts.bench.sections import alerts, exporter, outage, probes, sending, status, tasks, tracing, watching
from scripts.bench.start import start

SECTIONS = {  # in the order of the page
    "start": ("From the template to the first task", start),
    "tasks": ("Tasks per second", tasks),
    "watching": ("What watching costs", watching),
    "tracing": ("What tracing costs", tracing),
    "exporter": ("The exporter beside a million messages", exporter),
    "probes": ("Liveness probes", probes),
    "status": ("The status page", status),
    "outage": ("The broker away for ten minutes", outage),
    "alerts": ("From the fault to the alert", alerts),
    "sending": ("Sending while the broker or the result backend is away", sending),
}


def main():
    """Measure the named sections, or all, and write each into the page once it is there."""
    names = sys.argv[1:] or list(SECTIONS)
    if unknown := set(names) - SECTIONS.keys():
        sys.exit(f"No section: {', '.join(sorted(unknown))}. The sections: {', '.join(SECTIONS)}.")
    headings = [heading for heading, _ in SECTIONS.values()]
    with generated_projects() as projects:
        for name in names:
            heading, measure = SECTIONS[name]
            text = page.section(name, measure(projects))
            page.PATH.write_text(page.renewed(page.PATH.read_text(), headings, {heading: text}))
            print(f"## {heading}\n\n{text}", flush=True)


if __name__ == "__main__":
    main()
