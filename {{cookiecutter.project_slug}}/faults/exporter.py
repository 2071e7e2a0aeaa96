"""`python -m faults.exporter`: the project's exporter, which asks its sources each second."""

import django

django.setup()

from django.core.management import call_command  # noqa: E402  # needs the settings

from metrics import collectors  # noqa: E402

collectors.EVERY, collectors.STALE_AFTER = 1, 3

if __name__ == "__main__":
    call_command("exporter")
