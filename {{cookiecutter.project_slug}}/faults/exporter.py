"""`python -m faults.exporter`: the project's exporter, which asks its sources each second."""

import django
from django.core.management import call_command


def main() -> None:
    """Run it; what it asks has models, so Django comes first."""
    django.setup()
    from metrics import collectors

    collectors.EVERY, collectors.STALE_AFTER = 1, 3
    call_command("exporter")


if __name__ == "__main__":
    main()
