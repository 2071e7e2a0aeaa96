"""Where each URL leads. The probes `/livez` and `/readyz` are answered in health/middleware.py."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from health.dependencies import healthz
from home.views import home
from status.views import status

urlpatterns = [
    path("", home, name="home"),
    # What browsers ask for on pages that name no icon, as the admin's.
    path("favicon.ico", RedirectView.as_view(url="/static/home/favicon.svg")),
    path("healthz", healthz),
    path("admin/status/", admin.site.admin_view(status), name="status"),
    path("admin/", admin.site.urls),
]
