"""Ask for reports in the admin and watch them finish."""

from django.contrib import admin
from django.forms import ModelForm
from django.http import HttpRequest

from jobs.models import Report
from jobs.tasks import write_report


@admin.register(Report)
class ReportAdmin(admin.ModelAdmin):
    """Adding a report sends the task that writes it."""

    list_display = ("title", "requested_at", "attempts", "finished_at")
    readonly_fields = ("requested_at", "attempts", "finished_at", "text")
    search_fields = ("title",)

    def save_model(self, request: HttpRequest, obj: Report, form: ModelForm, change: bool) -> None:
        """Save, and send the task: it leaves once the row is committed, never before."""
        super().save_model(request, obj, form, change)
        if not change:
            write_report.delay(obj.pk)
