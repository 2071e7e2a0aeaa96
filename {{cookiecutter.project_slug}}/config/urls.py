"""Where each URL leads. The probes `/livez` and `/readyz` are answered in health/middleware.py."""

from django.contrib import admin
from django.urls import path

from home.views import home

urlpatterns = [
    path("", home, name="home"),
    path("admin/", admin.site.urls),
]
