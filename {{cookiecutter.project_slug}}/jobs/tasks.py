"""Three tasks, each with the one habit that it shows. Copy the one that is nearest to yours."""

import time
from datetime import timedelta

import structlog
from celery import shared_task
from django.core.mail import send_mail
from django.db.models import F
from django.utils import timezone

from jobs.models import Report

logger = structlog.get_logger(__name__)


@shared_task
def write_report(report_id: int) -> None:
    """Write a report. Idempotent: a second run finds it finished and changes nothing.

    It gets the row's id and not the row: the row may have changed since the task was sent.
    """
    unfinished = Report.objects.filter(pk=report_id, finished_at=None)
    if not unfinished.update(attempts=F("attempts") + 1):
        logger.info("nothing_to_do", report_id=report_id)
        return
    report = Report.objects.get(pk=report_id)
    time.sleep(report.seconds)  # stands for the real work
    unfinished.update(text=f"All about {report.title}.", finished_at=timezone.now())


@shared_task(autoretry_for=(OSError,))  # the mail server is unreachable or broke off; SMTPException is one
def send_report(report_id: int, address: str) -> None:
    """Mail a finished report. What may pass is tried again, as the base task in reliability/task.py says.

    Two runs send two mails: where that does harm, note in the row that it was sent.
    """
    report = Report.objects.get(pk=report_id)
    send_mail(report.title, report.text, from_email=None, recipient_list=[address])


@shared_task
def delete_old_reports(days: int = 30) -> int:
    """Delete the reports finished more than `days` days ago; sent by beat every hour. Return how many."""
    oldest = timezone.now() - timedelta(days=days)
    _, deleted = Report.objects.filter(finished_at__lt=oldest).delete()
    return deleted.get("jobs.Report", 0)
