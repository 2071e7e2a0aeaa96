"""Celery made reliable: one promise per module. README.md lists them, and how to switch each off."""
