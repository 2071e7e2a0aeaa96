"""Write `.env` for development on this machine, unless it exists. Needs nothing but Python."""

import secrets
from pathlib import Path

TEXT = """\
# For development on this machine. Git ignores this file; .env.example explains each variable.
SECRET_KEY={secret_key}
DEBUG=true
ALLOWED_HOSTS=localhost,127.0.0.1
EMAIL_URL=console://
DEFAULT_FROM_EMAIL=webmaster@localhost

# `make up` starts its own servers for those of these that are not set.
# DATABASE_URL=
# BROKER_URL=
# CACHE_URL=
"""


def main() -> None:
    """Write the file, readable by its owner alone: it holds the only secret."""
    path = Path(__file__).resolve().parent.parent / ".env"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(TEXT.format(secret_key=secrets.token_urlsafe(48)))


if __name__ == "__main__":
    main()
