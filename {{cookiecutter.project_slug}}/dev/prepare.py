"""Bring the database up to date and make sure that somebody can log in. Run by `make up`."""

import secrets
import sys

import django
import psycopg
from django.contrib.auth import get_user_model
from django.core.management import call_command

from config import env


def main() -> None:
    """Migrate, and create `admin` with a random password when there is no superuser."""
    try:
        psycopg.connect(env.DATABASE_URL, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        sys.exit(f"DATABASE_URL: {error}")
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return
    password = secrets.token_urlsafe(9)
    users.create_superuser("admin", password=password)
    print(f"Log in at /admin/ as admin with the password {password}  (shown only this once)")


if __name__ == "__main__":
    main()
