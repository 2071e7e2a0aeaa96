"""Write `.env` in this folder, for development, unless it exists. Needs nothing but Python."""

import os

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
    """Write the file, readable by its owner alone: it holds the only secret, 256 random bits."""
    try:
        file = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    except FileExistsError:
        return
    os.write(file, TEXT.format(secret_key=os.urandom(32).hex()).encode())
    os.close(file)


if __name__ == "__main__":
    main()
