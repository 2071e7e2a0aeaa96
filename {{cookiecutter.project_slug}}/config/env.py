"""Every environment variable that this project reads. `.env.example` explains each.

They are read here, all at once, so that a start with three mistakes names all three and a
start with none has nothing left to discover. Each constant has the name of its variable.
"""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from environs import Env, EnvValidationError, ValidationError
from environs import validate as _validate
from sentry_sdk.utils import BadDsn, Dsn

BASE_DIR = Path(__file__).resolve().parent.parent

_env = Env(eager=False)  # collect the errors, raise them together in seal()
# The real environment wins over both files, and what `make up` runs now over what .env says.
_env.read_env(BASE_DIR / ".local" / "servers.env", recurse=False)
_env.read_env(BASE_DIR / ".env", recurse=False)


def _url(*schemes: str, path: str = "") -> Callable[[str], None]:
    """Return a validator for a URL of one of `schemes`, with a host, and with a path if that is named.

    It never repeats the URL: it may hold a password.
    """

    def check(text: str) -> None:
        expected = "Expected " + " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018  # reading it raises ValueError when it is not a port
        except ValueError as error:
            raise ValidationError(f"{expected}, got a URL with a bad host or port.") from error
        if parts.scheme not in schemes:
            raise ValidationError(f"{expected}, got {parts.scheme or 'no scheme'}.")
        if not parts.hostname:
            raise ValidationError(f"{expected} and a host, got no host.")
        if path and not parts.path.strip("/"):
            raise ValidationError(f"{expected}, a host and {path}, got nothing after the host.")

    return check


def _redis_url(text: str) -> None:
    _url("redis", "rediss")(text)
    database = urlsplit(text).path.strip("/")
    if database and not database.isdigit():
        raise ValidationError("Expected the number of a database after the host.")


def _email_url(text: str) -> None:
    if text != "console://":
        _url("submission", "smtp")(text)


def _dsn(text: str) -> None:
    try:
        if text:
            Dsn(text)
    except BadDsn as error:
        raise ValidationError("Expected the DSN of a Sentry project, https://key@host/number.") from error


def _collector(text: str) -> None:
    if text:
        _url("http", "https")(text)


def _secret(text: str) -> None:
    if len(text) < 50 or len(set(text)) < 10:
        raise ValidationError("Expected at least 50 random characters.")


def _host_names(names: list[str]) -> None:
    if not names or not all(names):
        raise ValidationError("Expected host names, separated by commas.")


def _servers(names: list[str]) -> None:
    if not all(re.fullmatch(r".+:\d+", name) for name in names):
        raise ValidationError("Expected servers as host:port, separated by commas.")


_positive = _validate.Range(min=1)

# Django
SECRET_KEY = _env.str("SECRET_KEY", validate=_secret)
DEBUG = _env.bool("DEBUG", default=False)
ALLOWED_HOSTS: list[str] = _env.list("ALLOWED_HOSTS", subcast=str.strip, validate=_host_names)
BEHIND_TLS_PROXY = _env.bool("BEHIND_TLS_PROXY", default=False)
LOG_LEVEL = _env.str(
    "LOG_LEVEL",
    default="INFO",
    validate=_validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
)

# Servers
DATABASE_URL = _env.str("DATABASE_URL", validate=_url("postgres", "postgresql", path="a database's name"))
CACHE_URL = _env.str("CACHE_URL", validate=_redis_url)
# jinja: if cookiecutter.broker == "redis"
BROKER_URL = _env.str("BROKER_URL", validate=_redis_url)
# jinja: else
BROKER_URL = _env.str("BROKER_URL", validate=_url("amqp", "amqps"))
# jinja: endif
BROKER_TLS_VERIFY = _env.str("BROKER_TLS_VERIFY", default="on", validate=_validate.OneOf(["on", "off"]))
EMAIL_URL = _env.str("EMAIL_URL", validate=_email_url)
DEFAULT_FROM_EMAIL = _env.str("DEFAULT_FROM_EMAIL", validate=_validate.Length(min=3))
SENTRY_DSN = _env.str("SENTRY_DSN", default="", validate=_dsn)
OTEL_EXPORTER_OTLP_ENDPOINT = _env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="", validate=_collector)

# Processes
PORT = _env.int("PORT", default=8000, validate=_validate.Range(min=1, max=65535))
HEALTH_TOKEN = _env.str("HEALTH_TOKEN", default="")
METRICS_HOST = _env.str("METRICS_HOST", default="127.0.0.1", validate=_validate.Length(min=1))
METRICS_PORT = _env.int("METRICS_PORT", default=0, validate=_validate.Range(min=0, max=65535))
CERTIFICATES: list[str] = _env.list("CERTIFICATES", default=[], subcast=str.strip, validate=_servers)
WEB_CONCURRENCY = _env.int("WEB_CONCURRENCY", default=2, validate=_positive)
WEB_THREADS = _env.int("WEB_THREADS", default=4, validate=_positive)
WORKER_CONCURRENCY = _env.int("WORKER_CONCURRENCY", default=2, validate=_positive)
WORKER_MAX_MEMORY_MB = _env.int("WORKER_MAX_MEMORY_MB", default=400, validate=_positive)
WORKER_RESTART_IF_DEAF = _env.bool("WORKER_RESTART_IF_DEAF", default=False)
# jinja: if cookiecutter.deploy == "heroku"
STOP_GRACE = _env.int("STOP_GRACE", default=30, validate=_validate.Range(min=13))
# jinja: else
STOP_GRACE = _env.int("STOP_GRACE", default=310, validate=_validate.Range(min=13))
LONG_STOP_GRACE = _env.int("LONG_STOP_GRACE", default=1510, validate=_validate.Range(min=13))
# jinja: endif
# jinja: if cookiecutter.broker == "redis"
TASK_LONGEST_DELAY = _env.int("TASK_LONGEST_DELAY", default=3600, validate=_validate.Range(min=0))
# jinja: endif

try:
    _env.seal()
except EnvValidationError as error:
    # SystemExit, so that the person who starts the project reads these lines and no traceback.
    problems = dict(error.error_messages)  # type: ignore[arg-type]  # a mapping when seal() raises it
    lines = [f"{name}: {' '.join(messages)}" for name, messages in problems.items()]
    hint = "See .env.example; in development `make up` sets the URLs of the servers."
    raise SystemExit("\n".join([*lines, hint])) from None
