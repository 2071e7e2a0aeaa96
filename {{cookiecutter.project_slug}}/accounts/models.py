"""Who logs in."""

from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """A person or a service account. Starts equal to Django's own user; add fields here."""
