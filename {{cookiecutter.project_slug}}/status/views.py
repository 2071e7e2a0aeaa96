"""The page in the admin. It asks the cache for everything but the dead letters, which the database knows."""

from typing import Any

import structlog
from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from redis import RedisError

from reliability.models import DeadLetter, Reason, State
from status.reading import reports
from status.reporting import EVERY
from status.summary import Summary, summary_of

logger = structlog.get_logger(__name__)
CACHE_AWAY = "The cache, where all processes report, does not answer."


def status(request: HttpRequest) -> HttpResponse:
    """Show how everything is. For members of the staff: config/urls.py sees to that."""
    try:
        page = summary_of(reports())
    except RedisError as error:
        logger.warning("status_unknown", error=repr(error))
        page = Summary(unknown=dict.fromkeys(("queues", "workers", "schedule"), CACHE_AWAY))
    letters = dead_letters()
    if letters:
        count = sum(letter["count"] for letter in letters)
        page.note("DeadLetters", f"Dead letters: {count:,}. They wait for a person.")
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Status",
        "page": page,
        "letters": letters,
        "may_see_letters": request.user.has_perm("reliability.view_deadletter"),
        "now": timezone.now(),
        "every": EVERY,
    }
    return TemplateResponse(request, "status/page.html", context)


def dead_letters() -> list[dict[str, Any]]:
    """Return how many dead letters wait for a person, by reason."""
    labels = dict(Reason.choices)
    waiting = DeadLetter.objects.filter(state=State.DEAD).order_by()
    counted = waiting.values("reason").annotate(count=Count("pk")).order_by("-count")
    return [{**kind, "text": labels.get(kind["reason"], kind["reason"])} for kind in counted]
