"""Django's settings for the comparison: a plain project, so that nothing of ours helps Celery there."""

import os

import dj_database_url

SECRET_KEY = os.environ["SECRET_KEY"]
DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"])}
INSTALLED_APPS: list[str] = []
USE_TZ = True
