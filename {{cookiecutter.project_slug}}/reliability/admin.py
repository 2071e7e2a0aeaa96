"""Dead letters in Django's admin: see what failed and why, send it again, or discard it."""

import uuid
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from kombu.exceptions import OperationalError

from reliability import requeueing
from reliability.inspecting import FIELDSETS, StateFilter, age, arguments_in_short, as_it_is, problem_in_short
from reliability.models import REDACTED, DeadLetter, Reason, State
from reliability.tasks import requeue_dead_letters

LARGE = ("traceback", "headers", "body", "letters")  # columns that the list does not need
SILENCE = 20  # seconds without progress after which the page wonders about the workers


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):
    """A list to work off, newest first. Nothing is made or changed by hand."""

    list_display = ("task", problem_in_short, arguments_in_short, age, "failures", "queue", "state")
    list_filter = (StateFilter, "reason", "task", "queue", "failed_at")
    search_fields = ("task_id", "task", "error", "args", "kwargs")
    search_help_text = "An id, or a part of a task's name, its error or its arguments"
    show_full_result_count = False  # it would count the whole table beside each search
    actions = ("requeue", "delete_selected")
    fieldsets = FIELDSETS
    long_args = as_it_is("args", "arguments")
    long_kwargs = as_it_is("kwargs", "keyword arguments")
    long_traceback = as_it_is("traceback", "traceback")
    long_headers = as_it_is("headers", "headers")
    long_body = as_it_is("body", "body")

    class Media:
        css = {"all": ["reliability/admin.css"]}

    @admin.display(description="can be requeued")
    def can_be_requeued(self, letter: DeadLetter) -> str:
        """Say why not."""
        if letter.complete:
            return "Yes"
        why = "its arguments are redacted" if letter.args == REDACTED else "its message was not kept whole"
        return f"No: {why}. Send the task anew from where it came from."

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds one by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        """Nobody changes one by hand."""
        return False

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Whether the user may send tasks again."""
        return request.user.has_perm("reliability.requeue_deadletter")

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Leave the large columns to the page that shows them."""
        return super().get_queryset(request).defer(*LARGE)

    def get_urls(self) -> list[URLPattern]:
        """Add the page that shows how far a requeue is."""
        view = self.admin_site.admin_view(self.requeue_view)
        return [
            path("requeue/<uuid:batch>/", view, name="reliability_deadletter_requeue"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one letter, with the buttons that the user may press."""
        may = {
            "may_requeue": self.has_requeue_permission(request),
            "may_discard": self.has_delete_permission(request),
        }
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may})

    @admin.action(description="Requeue selected dead letters", permissions=["requeue"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        """Have a worker send them again: marks them, however many they are, and shows the progress."""
        if before := queryset.filter(state=State.REQUEUED).count():
            messages.warning(request, f"Left alone, because requeued before: {before}.")
        batch = requeueing.ask(queryset, by=request.user.get_username())
        if not DeadLetter.objects.filter(requeue_batch=batch).exists():
            return None
        self._send(request)
        return HttpResponseRedirect(reverse("admin:reliability_deadletter_requeue", args=[batch]))

    def _send(self, request: HttpRequest) -> None:
        """Send the task that requeues what is marked, after the commit; tell the user when that fails."""

        def send() -> None:
            try:
                requeue_dead_letters.delay()
            except OperationalError as error:
                messages.error(request, f"The broker cannot be reached: {error}. Press Continue when it can.")

        transaction.on_commit(send, using=router.db_for_write(DeadLetter))

    def requeue_view(self, request: HttpRequest, batch: uuid.UUID) -> HttpResponse:
        """Show how far a requeue is, again and again until it is done. POST: `continue` or `stop`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            if not self.has_requeue_permission(request):
                raise PermissionDenied
            if "stop" in request.POST:
                messages.warning(request, f"Stopped. Left dead: {requeueing.stop(batch)}.")
            else:
                self._send(request)
            return HttpResponseRedirect(request.path)
        progress = requeueing.progress_of(batch)
        if not progress["all"]:
            raise Http404("Nothing is left of this requeue.")
        waiting = progress["waiting"]
        silent = waiting and (timezone.now() - progress["last_sent"]).total_seconds() > SILENCE
        context = {
            "progress": progress,
            "batch": batch,
            "silent": silent,
            "may_requeue": self.has_requeue_permission(request),
        }
        response = self._page(request, "requeue", "Requeue dead letters", context)
        if waiting:
            response["Refresh"] = "2"  # seconds
        return response

    @admin.action(description="Discard selected dead letters", permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        """Delete them, once the user has seen what they are; none that failed after that.

        In place of Django's own, whose form names each row: Django refuses more than 1000 fields.
        """
        until = parse_datetime(request.POST.get("until", ""))
        if until:
            chosen = queryset.filter(failed_at__lte=until)
            count = chosen.count()
            self.log_deletions(request, chosen)
            chosen.delete()
            messages.success(request, f"Discarded: {count}.")
            return None
        labels = dict(Reason.choices)
        kinds = queryset.order_by().values("task", "reason").annotate(count=Count("pk")).order_by("-count")
        context = {
            "count": queryset.count(),
            "kinds": [{**kind, "reason": labels.get(kind["reason"], kind["reason"])} for kind in kinds],
            "until": timezone.now().isoformat(),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "across": request.POST.get("select_across", "0"),
        }
        return self._page(request, "discard", "Discard dead letters", context)

    def _page(self, request: HttpRequest, name: str, title: str, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name
        base = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "media": self.media,
        }
        return TemplateResponse(request, f"admin/reliability/deadletter/{name}.html", {**base, **context})
