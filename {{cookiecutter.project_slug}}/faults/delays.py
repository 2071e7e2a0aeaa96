"""How long each alert takes with the thresholds of monitoring/: `python -m faults.delays`. Needs promtool.

The input of each alert's own test in `*_test.yaml` is played to its rules, evaluated each 15 s as in
prometheus.yaml. Prints a line for each alert: its name, severity, and the minutes from the last healthy
figure (inputs have one a minute) until it fires. On the way to a person come a scrape (15 s), the exporter's
question (5 s) and the group_wait of alertmanager.yaml (30 s).
"""

import re
import subprocess
import tempfile
from pathlib import Path

from dev import BASE_DIR

MONITORING = BASE_DIR / "monitoring"
STEP = 15  # seconds between two evaluations
LONGEST = 60  # minutes that the inputs last
EXPECTED = """\
      - expr: (count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)) > bool 0
        eval_time: {seconds}s
        exp_samples: [{{labels: '{{}}', value: 0}}]
"""


def minutes(rules: Path, alert: str, test: str) -> float:
    """Return after how many minutes of its test's input an alert fires first."""
    moments = range(0, LONGEST * 60 + 1, STEP)
    inputs = test.partition("    promql_expr_test:\n")[0]
    expected = "".join(EXPECTED.format(alert=alert, seconds=seconds) for seconds in moments)
    head = f"rule_files: [{rules}]\nevaluation_interval: {STEP}s\ntests:\n"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"{head}{inputs}    promql_expr_test:\n{expected}")
        file.flush()
        shown = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)
    # Each moment at which it fires is one at which the test fails, and promtool names the moment.
    firing = re.findall(r"time: (?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?,", shown.stdout + shown.stderr)
    if not firing:
        raise RuntimeError(f"{alert} never fires: {shown.stdout}{shown.stderr}")
    hours, whole, seconds = (int(part or 0) for part in firing[0])
    return hours * 60 + whole + seconds / 60 - healthy_minutes(inputs)


def healthy_minutes(inputs: str) -> int:
    """Return how long nothing changes in the input: `0x24 1x36` is a counter to which something happens."""
    return max(map(int, re.findall(r"values: [\d.]+x(\d+) ", inputs)), default=0)


def main() -> None:
    """Print the lines."""
    for rules in sorted(path for path in MONITORING.glob("alerts*.yaml") if not path.stem.endswith("_test")):
        severities = dict(re.findall(r"- alert: (\w+)\n.*?severity: (\w+)", rules.read_text(), re.DOTALL))
        tests = (rules.with_name(f"{rules.stem}_test.yaml")).read_text().split("  - name: ")[1:]
        for test in tests:
            alert, what = test.partition("\n")[0].split(" ", 1)
            if what == "fires":
                print(alert, severities[alert], f"{minutes(rules, alert, f'  - name: {test}'):g}", sep="  ")


if __name__ == "__main__":
    main()
