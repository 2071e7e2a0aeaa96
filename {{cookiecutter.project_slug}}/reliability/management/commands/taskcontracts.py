"""`manage.py taskcontracts`: keep the names, queues and signatures of all tasks in a file that git tracks."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from reliability.application import Celery
from reliability.contracts import Contract, compare, dumps, loads
from reliability.registry import loaded_app
from reliability.signatures import read_code


class Command(BaseCommand):
    """Write the file, or compare it with the code."""

    help = (
        "Write the name, queue and signature of every task to a file that git tracks. A change that would "
        "lose messages in flight is refused, with the two steps in which to make it."
    )
    requires_system_checks: list[str] = []  # some ask servers

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        default = Path(getattr(settings, "BASE_DIR", ""), "taskcontracts.json")
        parser.add_argument(
            "--check", action="store_true", help="write nothing, fail on every difference; for CI"
        )
        parser.add_argument(
            "--accept", action="store_true", help="write whatever changed: no old message is left"
        )
        parser.add_argument("--file", type=Path, default=default, help="default: %(default)s")

    def handle(self, *_: Any, check: bool, accept: bool, file: Path, **__: Any) -> None:
        """Write or compare; CommandError, which is exit status 1, with a line for each problem."""
        app = loaded_app()
        if not isinstance(app, Celery):
            raise CommandError(
                "Import the Celery application beside the settings, as Celery's guide for Django says."
            )
        code = read_code(app)
        if check or not accept:
            self.compare(file, code, check=check)
        if not check:
            file.write_text(dumps(code))
            self.stdout.write(f"Wrote the contracts of {len(code)} tasks to {file}.")

    def compare(self, file: Path, code: dict[str, Contract], *, check: bool) -> None:
        """Raise CommandError where messages would be lost, and with `check` on every difference."""
        try:
            changes = compare(loads(file.read_text()), code)
        except FileNotFoundError:
            if check:
                raise CommandError(
                    f"{file} is missing. Run `manage.py taskcontracts` and commit it."
                ) from None
            return
        except (OSError, ValueError) as error:
            raise CommandError(
                f"{file} cannot be read: {error}. Take it from git again, or write it anew with --accept."
            ) from None
        lines = [change.text for change in changes if check or change.breaks]
        if any(change.breaks for change in changes):
            lines.append("Once no message of the old kind is left: `manage.py taskcontracts --accept`.")
        elif lines:
            lines.append(f"Run `manage.py taskcontracts` and commit {file.name}.")
        if lines:
            raise CommandError("\n".join([f"{file.name} and the code differ.", *lines]))
