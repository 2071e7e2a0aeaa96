"""The canary: what is sent to learn how long a task waits."""

from celery import shared_task
from django.core.cache import cache

AGAIN = 15  # seconds from the return of a canary to the next one


def since_key(queue: str) -> str:
    """Return the cache's key of the moment since which a canary is under way; seconds since 1970."""
    return f"canary-since:{queue}"


def sent_key(queue: str) -> str:
    """Return the cache's key that keeps others from sending another canary to the queue."""
    return f"canary-sent:{queue}"


@shared_task
def canary(queue: str) -> None:
    """Say that this queue's canary has come through."""
    cache.delete(since_key(queue))
    cache.touch(sent_key(queue), AGAIN)
