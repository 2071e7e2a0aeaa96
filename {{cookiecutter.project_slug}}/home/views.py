"""The page at `/`."""

import celery
import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def home(request: HttpRequest) -> HttpResponse:
    """Show a new developer the ways in. Replace it by the project's own front page."""
    versions = {"Django": django.__version__, "Celery": celery.__version__} if settings.DEBUG else {}
    return render(request, "home/home.html", {"versions": versions})
