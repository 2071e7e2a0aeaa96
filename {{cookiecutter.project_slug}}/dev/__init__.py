"""Local servers for development and tests, and `make up`. Nothing here runs in production."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
LOCAL = BASE_DIR / ".local"  # all data of the local servers; git ignores it
