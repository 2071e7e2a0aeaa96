"""Django's settings: one file for every environment, which differs by its variables alone (config/env.py)."""

import dj_database_url
import dj_email_url
import sentry_sdk

from config import celeryconfig, env, log

BASE_DIR = env.BASE_DIR

# Application

INSTALLED_APPS = [
    "status",  # before the admin, whose header it adds a link to
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",  # before staticfiles: development serves as production does
    "django.contrib.staticfiles",
    "django_structlog",
    "accounts",
    "health",
    "home",
    "jobs",
    "metrics",
    "reliability",
]

MIDDLEWARE = [
    "health.middleware.HealthMiddleware",  # first: no later check may refuse a probe
    "metrics.web.MetricsMiddleware",  # then everybody but the probes is counted
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # jinja: if cookiecutter.django == "5.2"
    "csp.middleware.CSPMiddleware",
    # jinja: else
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    # jinja: endif
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Time is stored and scheduled in UTC; show it in a user's own zone where a page needs that.
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en-us"

# Servers

DATABASES = {"default": dj_database_url.parse(env.DATABASE_URL)}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # a restart of the database breaks no request after it
DATABASES["default"]["OPTIONS"] = {
    **DATABASES["default"].get("OPTIONS", {}),
    "connect_timeout": 5,  # seconds; the driver's default waits for ever
    # For web, a connection for each thread; config/celery.py takes the pool from workers. After
    # `timeout` seconds without a connection a request fails, and the pool goes on trying.
    "pool": {"min_size": 1, "max_size": env.WEB_THREADS, "timeout": 5},
}

# jinja: if cookiecutter.broker == "redis"
# In production another server than the broker: a cache evicts, and eviction is per server,
# so a shared one would drop queued tasks.
# jinja: endif
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": env.CACHE_URL,
        "OPTIONS": {"socket_connect_timeout": 2, "socket_timeout": 2},  # seconds
    },
}

_email = dj_email_url.parse(env.EMAIL_URL)
# jinja: if cookiecutter.django == "5.2"
EMAIL_BACKEND = _email["EMAIL_BACKEND"]
EMAIL_HOST = _email["EMAIL_HOST"]
EMAIL_PORT = _email["EMAIL_PORT"]
EMAIL_HOST_USER = _email["EMAIL_HOST_USER"]
EMAIL_HOST_PASSWORD = _email["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS = _email["EMAIL_USE_TLS"]
EMAIL_USE_SSL = _email["EMAIL_USE_SSL"]
EMAIL_TIMEOUT = 10  # seconds; Django's default waits for ever
# jinja: else
MAILERS = {"default": {"BACKEND": _email["EMAIL_BACKEND"]}}
if _email["EMAIL_HOST"]:
    MAILERS["default"]["OPTIONS"] = {
        "host": _email["EMAIL_HOST"],
        "port": _email["EMAIL_PORT"],
        "username": _email["EMAIL_HOST_USER"],
        "password": _email["EMAIL_HOST_PASSWORD"],
        "use_tls": _email["EMAIL_USE_TLS"],
        "use_ssl": _email["EMAIL_USE_SSL"],
        "timeout": 10,  # seconds; Django's default waits for ever
    }
# jinja: endif
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.DEFAULT_FROM_EMAIL

# Static files

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if env.DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage",
    },
}

# Security

SECRET_KEY = env.SECRET_KEY
DEBUG = env.DEBUG
ALLOWED_HOSTS = env.ALLOWED_HOSTS

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Believed only when a proxy in front sets it: anybody else could send the header too.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.BEHIND_TLS_PROXY else None
SECURE_SSL_REDIRECT = not env.DEBUG
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not env.DEBUG
# Browsers that saw this header once refuse plain HTTP for a year, on every subdomain too. The price:
# a subdomain that has no TLS becomes unreachable for them, and only time undoes it.
SECURE_HSTS_SECONDS = 0 if env.DEBUG else 60 * 60 * 24 * 365
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = not env.DEBUG
X_FRAME_OPTIONS = "DENY"

# Everything from this host, nothing inline.
# jinja: if cookiecutter.django == "5.2"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "object-src": ["'none'"],
    },
}

# jinja: else
SECURE_CSP = {
    "default-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "base-uri": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "object-src": ["'none'"],
}

# jinja: endif
# Tasks: what reliability/README.md describes; all of it is on unless it is False here

RELIABILITY: dict[str, object] = {"long_time_limit": celeryconfig.LONG_TIME_LIMIT}

# Monitoring: see health/ and metrics/

HEALTH_TOKEN = env.HEALTH_TOKEN
METRICS_HOST, METRICS_PORT = env.METRICS_HOST, env.METRICS_PORT
WORKER_RESTART_IF_DEAF = env.WORKER_RESTART_IF_DEAF
BROKER_URL = env.BROKER_URL
CERTIFICATES = env.CERTIFICATES

# Logs and errors

log.configure_structlog()
LOGGING = log.logging_config(env.LOG_LEVEL, pretty=env.DEBUG)
DJANGO_STRUCTLOG_CELERY_ENABLED = True  # the request id follows into the tasks that a request sends

if env.SENTRY_DSN:
    from celery.signals import task_retry
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.integrations.celery.beat import crons_task_retry

    # Environment and release come from Sentry's own SENTRY_ENVIRONMENT and SENTRY_RELEASE.
    sentry_sdk.init(
        dsn=env.SENTRY_DSN,
        send_default_pii=False,
        # Local variables hold the database's password where a connection fails, and what tasks redact;
        # bodies of requests hold passwords under names that no list knows. Neither leaves this machine.
        include_local_variables=False,
        max_request_body_size="never",
        # A cron monitor for each entry of beat's schedule, named after it; but for one of Celery's own.
        integrations=[
            CeleryIntegration(monitor_beat_tasks=True, exclude_beat_tasks=["celery.backend_cleanup"])
        ],
    )
    # Sentry takes one end of a run, and that of a run that is tried again is yet to come.
    task_retry.disconnect(crons_task_retry)
