"""Write the alerts of monitoring/ as the Prometheus Operator reads them. Needs nothing but Python.

Run it after each change of them: `python -m dev.rules`. tests/test_invariants.py notices when nobody did.
"""

from pathlib import Path

FILE = Path("deploy", "components", "prometheus-operator", "rules.yaml")
HEAD = """\
# Written by `python -m dev.rules`, from monitoring/alerts*.yaml: change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: alerts
  labels:
    release: kube-prometheus-stack
spec:
  groups:
"""


def rules(folder: Path) -> str:
    """Return the resource, with the groups of all files of rules in this project's folder."""
    text = HEAD
    for file in sorted(folder.glob("monitoring/alerts*.yaml")):
        _, _, groups = file.read_text().partition("\ngroups:\n")  # nothing, in the files that test them
        text += "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
    return text


if __name__ == "__main__":
    FILE.write_text(rules(Path()))
